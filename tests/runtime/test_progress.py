"""What a long job says where there is no terminal."""

from __future__ import annotations

import logging

import pytest

from ov2vss_runtime import progress
from ov2vss_runtime.progress import Progress, duration


def test_spans_of_time_in_words() -> None:
    spans = {0: "0 s", 89: "89 s", 90: "2 min", 3540: "59 min", 3600: "1 h 0 min", 86400 * 3: "3 days 0 h"}
    assert {s: duration(s) for s in spans} == spans


def test_a_line_every_half_minute_with_an_estimate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """100 parts of 2 s: a first estimate after 5 s, then a line every 30 s, and none at the end."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(100, "train", "it") as job:
        for _ in range(100):
            now[0] += 2
            job.update("loss 0.500")
    lines = [r.getMessage() for r in caplog.records]
    assert lines[0] == "train: 3 of 100 (3 %), 2.0 s/it, about 3 min left, loss 0.500"
    assert [line.split(" of ")[0] for line in lines] == [f"train: {n}" for n in (3, 18, 33, 48, 63, 78, 93)]
    assert lines[-1] == "train: 93 of 100 (93 %), 2.0 s/it, about 14 s left, loss 0.500"


def test_a_short_job_says_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO):
        for show, parts in ((True, 10), (False, 1000)):
            with Progress(parts, "evaluate", "frame", show=show) as job:
                for _ in range(parts):
                    now[0] += 1
                    job.update()
    assert not caplog.records


def test_a_job_that_goes_on_counts_its_own_parts_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(1000, "train", done=900) as job:
        for _ in range(10):
            now[0] += 0.5
            job.update()
    assert [r.getMessage() for r in caplog.records] == ["train: 910 of 1000 (91 %), 2.0 it/s, about 45 s left"]
