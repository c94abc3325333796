"""Metrics against hand-computed cases and a slow, independent float64 implementation."""

import numpy as np
import pytest

from ov2vss.data.label_tables import label_table, protocol_classes
from ov2vss.evaluate.metrics import Confusion, group_scores, video_consistency
from ov2vss_runtime.errors import OV2VSSError


@pytest.mark.parametrize(("raw", "label"), [(0, 255), (1, 0), (80, 79), (81, 80), (124, 123), (125, 255), (255, 255)])
def test_label_table_of_all_classes(raw: int, label: int) -> None:
    assert label_table(124)[raw] == label


@pytest.mark.parametrize(
    ("raw", "seen", "unseen"),
    [(0, 255, 255), (1, 0, 255), (80, 79, 255), (81, 255, 0), (124, 255, 43), (255, 255, 255)],
)
def test_label_tables_of_the_protocols(raw: int, seen: int, unseen: int) -> None:
    hidden = list(range(80, 124))
    assert label_table(124, protocol_classes("seen", 124, hidden))[raw] == seen
    assert label_table(124, protocol_classes("unseen", 124, hidden))[raw] == unseen


def test_protocol_without_classes_is_refused() -> None:
    with pytest.raises(OV2VSSError, match="leaves no class"):
        protocol_classes("unseen", 5, [])
    with pytest.raises(OV2VSSError, match="8-bit"):
        label_table(255)


def test_hand_computed_scores() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 3, 0, 2]], np.uint8)  # 3: a distractor; void pixels do not count
    confusion = Confusion(3, 4)
    confusion.update(truth, prediction)
    scores = confusion.scores()
    # class 0: 2 hits of 3, nothing else -> 2/3; class 1: 2 hits, 1 false, 1 missed -> 2/4; class 2 is absent
    assert scores["per_class"] == [pytest.approx(2 / 3), pytest.approx(0.5), None]
    assert scores["miou"] == pytest.approx((2 / 3 + 0.5) / 2)
    assert scores["fwiou"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.5)
    assert scores["macc"] == pytest.approx(2 / 3)
    assert scores["pacc"] == pytest.approx(4 / 6)


def test_against_an_independent_implementation() -> None:
    rng = np.random.default_rng(0)
    classes, vocabulary = 6, 9
    confusion = Confusion(classes, vocabulary)
    pairs = []
    for _ in range(3):
        truth = rng.choice([0, 1, 2, 4, 255], size=(17, 23)).astype(np.uint8)  # 3 and 5 never occur
        prediction = rng.choice([0, 1, 2, 3, 7, 255], size=(17, 23)).astype(np.uint8)  # 255: unknown
        confusion.update(truth, prediction)
        pairs += [(int(t), int(p)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True) if t != 255]
    ious, accuracies, frequency = {}, {}, {}
    for k in range(classes):
        total = sum(t == k for t, _ in pairs)
        if not total:
            continue
        hit = sum(t == k and p == k for t, p in pairs)
        false = sum(t != k and p == k for t, p in pairs)
        ious[k], accuracies[k], frequency[k] = hit / (total + false), hit / total, total / len(pairs)
    scores = confusion.scores()
    assert scores["miou"] == pytest.approx(np.mean(list(ious.values())))
    assert scores["fwiou"] == pytest.approx(sum(frequency[k] * ious[k] for k in ious))
    assert scores["macc"] == pytest.approx(np.mean(list(accuracies.values())))
    assert scores["pacc"] == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    assert [v is None for v in scores["per_class"]] == [k not in ious for k in range(classes)]


def test_groups() -> None:
    scores = group_scores([0.8, None, 0.4, 0.2], unseen=[2, 3])
    assert scores["seen_miou"] == pytest.approx(0.8)
    assert scores["unseen_miou"] == pytest.approx(0.3)
    assert scores["harmonic_miou"] == pytest.approx(2 * 0.8 * 0.3 / 1.1)
    assert group_scores([0.8, None], unseen=[1]) == {}


def test_video_consistency_by_hand() -> None:
    # Four frames of four pixels; windows of 2 start at 0 and 1 (one fewer than would fit).
    truth = np.array([[0, 0, 1, 255], [0, 0, 1, 255], [0, 1, 1, 255], [0, 1, 1, 255]])[:, None]
    prediction = np.array([[5, 5, 1, 0], [5, 6, 1, 0], [5, 6, 1, 1], [5, 6, 1, 1]])[:, None]
    # start 0: all four pixels steady in truth, the second one changes in the prediction -> 3/4
    # start 1: pixels 0, 2, 3 steady in truth; the last one changes in the prediction -> 2/3
    assert video_consistency(truth, prediction, 2) == [pytest.approx(3 / 4), pytest.approx(2 / 3)]
    assert video_consistency(truth, prediction, 4) == []
