"""Scores in time on label maps whose motion is known, and test pictures made worse."""

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from ov2vss.data import open_videos
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.cli import main
from ov2vss.evaluate.degrade import Degraded, degrade, parse_degrade
from ov2vss.evaluate.temporal import TemporalTally, boundary_f, edges, peak
from tests.runtime.stream.test_propagation import picture


def labels_at(offset: int) -> np.ndarray:
    """Two classes whose border moves with :func:`picture`."""
    x = np.indices((96, 160))[1]
    return (x < 100 - offset).astype(np.uint8)


def tally(shown: list[np.ndarray], rate: float = 15.0) -> dict:
    result, truths = TemporalTally(["a", "b"], rate), []
    for t, labels in enumerate(shown):
        truths.append(labels_at(4 * t))
        if t:
            result.pair((picture(4 * t), picture(4 * t - 4)), (labels, shown[t - 1]))
        result.labelled(truths[-9:], shown[: t + 1][-9:])
    return result.scores()


def test_labels_that_move_with_the_picture_agree() -> None:
    scores = tally([labels_at(4 * t) for t in range(11)])
    assert scores["agreement"] > 0.995
    assert scores["flips_per_second"] == pytest.approx(15 * (1 - scores["agreement"]))
    assert scores["boundary_f"] == 1.0
    assert abs(scores["edge_lag"]) < 0.1
    assert scores["vc8_per_class"] == {"a": 1.0, "b": 1.0}


def test_labels_that_stay_behind_lag() -> None:
    scores = tally([labels_at(max(0, 4 * t - 4)) for t in range(12)])
    assert scores["edge_lag"] == pytest.approx(1.0, abs=0.2)
    assert scores["boundary_f"] < 0.5


def test_flickering_labels_flip() -> None:
    steady = [labels_at(4 * t) for t in range(10)]
    flickering = [x ^ 1 if t % 2 else x for t, x in enumerate(steady)]
    scores = tally(flickering, rate=10)
    assert scores["flips_per_second"] > 9.9
    assert scores["vc8_per_class"] == {"a": 0.0, "b": 0.0}


def test_one_class_may_be_steadier_than_another() -> None:
    shown = [labels_at(4 * t) for t in range(9)]
    shown[4] = shown[4].copy()
    shown[4][:48, 140:] = 1  # a block of class 0 flips in one frame
    scores = tally(shown)
    assert scores["vc8_per_class"]["b"] == 1.0
    assert 0.5 < scores["vc8_per_class"]["a"] < 1.0


def test_boundary_f_against_its_definition() -> None:
    a, b = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    a[:, 10:], b[:, 12:] = 1, 1
    assert boundary_f(edges(a), edges(b)) == 1.0  # two pixels off
    b[:, 12] = 0
    assert boundary_f(edges(a), edges(b)) == 0.0  # three
    void = a.copy()
    void[:, 10:] = 255
    assert not edges(void).any()
    assert peak([0.1, 0.5, 0.9, 0.5, 0.1]) == 0.0
    assert peak([0.1, 0.2, 0.3, 0.8, 0.3]) == pytest.approx(1.0)


def test_worse_pictures() -> None:
    frame = picture(0)
    noisy = degrade(frame, "noise", 20, (0, 1)).astype(float) - frame
    assert np.std(noisy[(frame > 80) & (frame < 175)]) == pytest.approx(20, rel=0.05)
    np.testing.assert_array_equal(degrade(frame, "noise", 20, (0, 1)), degrade(frame, "noise", 20, (0, 1)))
    assert not np.array_equal(degrade(frame, "noise", 20, (0, 1)), degrade(frame, "noise", 20, (0, 2)))
    np.testing.assert_array_equal(degrade(frame, "blur", 3, ()), cv2.GaussianBlur(frame, (0, 0), 3))
    data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    expected = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(degrade(frame, "jpeg", 8, ()), expected)
    big = np.full((640, 640, 3), 7, np.uint8)
    assert (degrade(big, "drop", 0.25, (3,)) == 128).mean() == pytest.approx(0.25, abs=0.08)
    for bad in ("noise", "jpeg:0", "drop:2", "fog:1", "blur:x", "noise:nan"):
        with pytest.raises(OV2VSSError, match="degradation"):
            parse_degrade(bad)
    videos = open_videos("shapes", "val")
    worse = Degraded(videos, "jpeg", 8)
    assert worse.length(0) == videos.length(0)
    np.testing.assert_array_equal(worse.frame(0, 1), degrade(videos.frame(0, 1), "jpeg", 8, ()))


def test_options_that_need_a_bundle() -> None:
    for args in (("--keyframes", "2"), ("--no-smooth",)):
        done = CliRunner().invoke(main, ["--data", "shapes", "--pred", ".", *args])
        assert done.exit_code == 2
        assert "--bundle" in done.output
