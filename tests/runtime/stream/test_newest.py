"""The newest frame's labels on every frame: a slow network beside a fast source."""

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ov2vss_runtime.stream.flow import still
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.newest import Finding, NewestFrame
from ov2vss_runtime.stream.propagation import Smoothing
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import StreamOptions
from ov2vss_runtime.video.source import FrameSource, VideoFrame
from tests.runtime.stream.test_propagation import picture, scene

SIZE = (96, 160)
CLASSES = np.arange(2)


class Gate:
    """A network that answers when it is told to, with logits of the frame's number."""

    def __init__(self) -> None:
        self.go, self.asked = threading.Semaphore(0), []

    def __call__(self, frame: np.ndarray, index: int, moment: Any) -> Finding:
        self.asked.append(index)
        assert self.go.acquire(timeout=20)
        return Finding(scene(4 * index)[1], CLASSES)

    def finish(self, newest: NewestFrame) -> None:
        self.go.release()
        assert newest._busy is not None
        assert newest._busy.done.wait(20)


def show(newest: NewestFrame, t: int, wording: int = 0) -> tuple[np.ndarray, int] | None:
    found = newest.show(scene(4 * t)[0], t, None, wording, SIZE, 1)
    return None if found is None else (found[1], found[2])


def test_every_frame_has_the_newest_labels_in_place() -> None:
    gate = Gate()
    with NewestFrame(gate, None) as newest:
        assert show(newest, 0) is None  # nothing found yet: the frame is shown all the same
        gate.finish(newest)
        labels, age = show(newest, 1)
        assert age == 0
        for t in range(2, 6):
            labels, found = show(newest, t)
            assert found == 0
        assert newest._busy.index == 1
        gate.finish(newest)  # frame 1
        labels, found = show(newest, 6)
        assert found == 1
        truth, held = (label_map(scene(4 * t)[1], SIZE) for t in (6, 1))
        assert (labels == truth)[:, :130].mean() > 0.985
        assert (held == truth)[:, :130].mean() < 0.95
        assert newest._busy.index == 6
        gate.go.release()


def test_new_words_and_errors() -> None:
    gate = Gate()
    with NewestFrame(gate, Smoothing()) as newest:
        show(newest, 0)
        gate.finish(newest)
        assert show(newest, 1) is not None
        assert show(newest, 2, wording=1) is None  # frame 1 is still with the network, asked about the old words
        gate.finish(newest)
        assert show(newest, 3, wording=1) is None
        gate.finish(newest)
        assert show(newest, 4, wording=1)[1] == 3
        gate.go.release()

    def fails(*_: Any) -> Finding:
        raise ValueError("broken graph")

    with NewestFrame(fails, None) as newest:
        show(newest, 0)
        newest._busy.done.wait(5)
        with pytest.raises(ValueError, match="broken graph"):
            show(newest, 1)


def test_a_lost_motion_keeps_the_labels_where_they_are_and_blends_nothing() -> None:
    gate = Gate()
    with NewestFrame(gate, Smoothing()) as newest:
        show(newest, 0)
        gate.finish(newest)
        show(newest, 1)
        found = newest.show(picture(0, seed=7), 2, None, 0, SIZE, 1)
        np.testing.assert_array_equal(found[0].logits, scene(0)[1])
        gate.finish(newest)
        found = newest.show(picture(0, seed=7), 3, None, 0, SIZE, 1)
        np.testing.assert_array_equal(found[0].logits, scene(4)[1])
        assert newest._busy.before is None
        gate.go.release()
    assert still((2, 3)).flow.shape == (2, 3, 2)


class Camera(FrameSource):
    """Frames by the clock, whether somebody takes them or not."""

    live, name, height, width = True, "camera", 96, 160
    time_base, rate = Fraction(1, 1000), Fraction(25)

    def __init__(self, frames: int) -> None:
        self.count = frames

    def __iter__(self) -> Iterator[VideoFrame]:
        began = time.monotonic()
        for t in range(self.count):
            time.sleep(max(0.0, began + t / 25 - time.monotonic()))
            yield VideoFrame(picture(t % 48), 40 * t, t / 25)


def test_a_slow_model_shows_every_frame_of_a_camera(bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter.load(bundle, threads=1)
    backbone = segmenter.engine.backbone

    def slow(frame: np.ndarray) -> Any:
        time.sleep(1 / 3)
        return backbone(frame)

    monkeypatch.setattr(segmenter.engine, "backbone", slow)
    for options in (StreamOptions(), StreamOptions(smooth=False, confidence=True)):
        stream = segmenter.stream(Camera(50), "red circle; blue square", realtime="async", queue=25, options=options)
        results = list(stream)
        assert [r.index for r in results] == list(range(50))
        assert stream.dropped == 0
        assert 1 < stream.computed < 10
        ages = [r.age for r in results if r.propagated]
        assert 3 < max(ages) < 40
        assert (results[0].labels == results[0].unknown).all()
        assert (results[-1].labels < 2).all()
        assert {r.index - r.age for r in results if r.propagated} <= set(range(50))
    assert all(r.confidence is not None for r in results)
