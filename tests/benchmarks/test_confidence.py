"""``benchmarks/confidence.py``: its error by hand, and its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.confidence import ABSENT, calibration_error, main, shares
from tests.hand_made import HandMade


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    right = np.array([True, True, True, False, True, False])
    assert calibration_error(confidence, right) == pytest.approx(abs(0.95 - 0.75) * 4 / 6)
    assert calibration_error(np.ones(4), np.array([True] * 4)) == 0


def test_shares_are_the_softmax_of_the_best_word() -> None:
    cosines = np.random.RandomState(0).uniform(-1, 1, (5, 9))
    scaled = np.exp(30 * cosines)
    assert np.allclose(shares(cosines, 30), scaled.max(0) / scaled.sum(0))


def test_tables_of_a_bundle_and_a_data_set(tmp_path: Path) -> None:
    folder = HandMade().write(tmp_path / "hand-made")
    args = ["--bundle", str(folder), "--data", "shapes", "--frames", "4", "--others", "3"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    lines = [line.split(" | ") for line in done.output.splitlines()]
    assert [line[0] for line in lines if line[0] in ("| 17", "| 20")] == ["| 17", "| 20"]
    kept = [float(line[1]) for line in lines[-len(ABSENT) :]]
    assert kept[0] == 20
    assert kept == sorted(kept, reverse=True)
