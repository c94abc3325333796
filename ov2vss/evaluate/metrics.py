"""Segmentation and consistency metrics on label maps, numpy only.

The confusion matrix is rectangular: evaluated classes x vocabulary. A prediction outside the evaluated classes is a
miss for the true class and a false positive for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss.data.label_tables import VOID


@dataclass
class Confusion:
    """Pixel counts ``matrix[truth, prediction]``; column ``vocabulary`` holds unknown predictions.

    Args:
        classes: number of evaluated classes; prediction ``k`` in ``0..classes-1`` means class ``k``.
        vocabulary: number of words that a prediction can take, at least ``classes``.
    """

    classes: int
    vocabulary: int
    matrix: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.classes, self.vocabulary + 1), np.int64)

    def update(self, truth: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> None:
        """Count one label map; both ``[H, W]``, truth 255 is void, predictions above the vocabulary are unknown."""
        valid = truth < self.classes
        columns = self.vocabulary + 1
        predicted = np.minimum(prediction[valid].astype(np.int64), self.vocabulary)
        index = truth[valid].astype(np.int64) * columns + predicted
        self.matrix += np.bincount(index, minlength=self.classes * columns).reshape(self.classes, columns)

    def scores(self) -> dict[str, Any]:
        """``miou``, ``fwiou``, ``macc``, ``pacc`` over the classes present in the truth, and ``per_class`` IoU."""
        m = self.matrix.astype(np.float64)
        hits = np.diagonal(m)[: self.classes]
        truth = m.sum(1)
        predicted = m[:, : self.classes].sum(0)
        present = truth > 0
        union = truth + predicted - hits
        iou = np.divide(hits, union, out=np.full(self.classes, np.nan), where=union > 0)
        accuracy = np.divide(hits, truth, out=np.full(self.classes, np.nan), where=present)
        if not present.any():
            return {"miou": None, "fwiou": None, "macc": None, "pacc": None, "per_class": [None] * self.classes}
        share = truth / truth.sum()
        return {
            "miou": float(iou[present].mean()),
            "fwiou": float((share[present] * iou[present]).sum()),
            "macc": float(accuracy[present].mean()),
            "pacc": float(hits.sum() / truth.sum()),
            "per_class": [float(v) if p else None for v, p in zip(iou, present, strict=True)],
        }


def group_scores(per_class: list[float | None], unseen: list[int]) -> dict[str, float]:
    """Seen, unseen and harmonic-mean mIoU of a confusion that held both; empty if one group has no pixels."""
    seen = [v for k, v in enumerate(per_class) if k not in set(unseen) and v is not None]
    new = [v for k, v in enumerate(per_class) if k in set(unseen) and v is not None]
    if not seen or not new:
        return {}
    a, b = float(np.mean(seen)), float(np.mean(new))
    return {"seen_miou": a, "unseen_miou": b, "harmonic_miou": 2 * a * b / (a + b) if a + b else 0.0}


def video_consistency(
    truths: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer], window: int
) -> list[float]:
    """VC of one video by the rule of the VSPW benchmark, one value per window.

    Windows start at ``0 .. length - window - 1``; videos of at most ``window`` frames give none. Of the pixels whose
    truth is constant over the window (void counts as a label), the share whose *prediction* is constant; it need not
    be right. A window without such pixels is left out.

    Args:
        truths, predictions: label maps ``[T, H, W]`` of every frame.
    """
    values = []
    for start in range(len(truths) - window):
        part = slice(start, start + window)
        steady = (truths[part] == truths[start]).all(0)
        if steady.any():
            same = (predictions[part] == predictions[start]).all(0)
            values.append(float((steady & same).sum() / steady.sum()))
    return values


__all__ = ["VOID", "Confusion", "group_scores", "video_consistency"]
