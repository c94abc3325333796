"""How labels behave in time: do they stay with what they label, how often do they flip, and do their edges lag.

Motion is OpenCV's DIS flow of the pictures as they were (not degraded), at 320 pixels of width at most, between
neighbouring frames; a pixel counts where the way back and forth ends within a pixel. None of this looks at how the
labels were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.data.label_tables import VOID, label_table
from ov2vss.data.source import VideoSet
from ov2vss.evaluate.evaluate import Labels, Predict, Protocol

WIDTH = 320
"""Pixels of the flow's pictures at most."""
REACH = 2
"""Pixels by which an edge may be off for the boundary F."""
SHIFTS = (-2, -1, 0, 1, 2)
"""Frames by which the truth is shifted for the edge lag; positive: an earlier truth."""
WINDOW = 8


def moved(
    frame: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Where each pixel of a label map of ``size`` was a frame ago, ``[H, W, 2]`` (x, y), and which of them count."""
    scale = min(1.0, WIDTH / size[1])
    h, w = round(size[0] * scale), round(size[1] * scale)
    now, last = (
        cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (w, h), interpolation=cv2.INTER_AREA) for f in (frame, before)
    )
    make: Any = cv2.DISOpticalFlow_create  # type: ignore[attr-defined]  # its stubs leave it out
    dis = make(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forth, back = dis.calc(now, last, None), dis.calc(last, now, None)
    y, x = np.indices((h, w), np.float32)
    at = forth + np.stack((x, y), -1)
    home = forth + cv2.remap(back, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (at >= 0).all(-1) & (at[..., 0] <= w - 1) & (at[..., 1] <= h - 1)
    sure = ((np.hypot(home[..., 0], home[..., 1]) < 1) & inside).astype(np.uint8)
    ratio = np.array([size[1] / w, size[0] / h], np.float32)
    full = cv2.resize(forth, size[::-1], interpolation=cv2.INTER_LINEAR) * ratio
    y, x = np.indices(size, np.float32)
    return full + np.stack((x, y), -1), cv2.resize(sure, size[::-1], interpolation=cv2.INTER_NEAREST) > 0


def agreement(
    labels: Labels, before: Labels, at: npt.NDArray[np.float32], sure: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    """Pixels that have the label that they had a frame ago, and pixels that count."""
    h, w = labels.shape
    x = np.clip(np.rint(at[..., 0]), 0, w - 1).astype(np.intp)
    y = np.clip(np.rint(at[..., 1]), 0, h - 1).astype(np.intp)
    return int(((labels == before[y, x]) & sure).sum()), int(sure.sum())


def edges(labels: Labels) -> npt.NDArray[np.uint8]:
    """1 where a pixel differs from its right or lower neighbour; edges of void count for nothing."""
    found = np.zeros(labels.shape, np.uint8)
    for a, b, to in (
        (labels[:, :-1], labels[:, 1:], found[:, :-1]),
        (labels[:-1], labels[1:], found[:-1]),
    ):
        to |= ((a != b) & (a != VOID) & (b != VOID)).astype(np.uint8)
    return found


def boundary_f(found: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> float:
    """F measure of two edge maps; an edge is met where the other one has an edge within :data:`REACH` pixels."""
    kernel = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
    if not found.any() or not truth.any():
        return float(not found.any() and not truth.any())
    precision = float(cv2.dilate(truth, kernel)[found > 0].mean())
    recall = float(cv2.dilate(found, kernel)[truth > 0].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def peak(values: list[float]) -> float:
    """Place of the maximum among :data:`SHIFTS`, by a parabola through it and its neighbours."""
    k = int(np.argmax(values))
    if k in (0, len(values) - 1):
        return float(SHIFTS[k])
    left, top, right = values[k - 1 : k + 2]
    bend = left - 2 * top + right
    return float(SHIFTS[k] + (0.5 * (left - right) / bend if bend else 0.0))


@dataclass
class TemporalTally:
    """Counts of all videos.

    Args:
        names: of the evaluated classes.
        rate: frames a second of the videos.
    """

    names: list[str]
    rate: float
    same: int = 0
    sure: int = 0
    steady: npt.NDArray[np.float64] = field(init=False)
    boundary: dict[int, list[float]] = field(default_factory=lambda: {shift: [] for shift in SHIFTS})

    def __post_init__(self) -> None:
        self.steady = np.zeros((len(self.names), 2))

    def pair(self, frames: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], labels: tuple[Labels, Labels]) -> None:
        """A frame and the one before it, and their labels."""
        same, sure = agreement(*labels, *moved(*frames, labels[0].shape))
        self.same, self.sure = self.same + same, self.sure + sure

    def labelled(self, truths: list[Labels], predictions: list[Labels]) -> None:
        """A run of neighbouring frames with truth: the last of ``predictions``, up to :data:`WINDOW` of them."""
        if len(truths) > WINDOW:
            truth, found = np.stack(truths[-WINDOW:]), np.stack(predictions[-WINDOW:])
            fixed, same = (truth == truth[0]).all(0), (found == found[0]).all(0)
            for k in range(len(self.names)):
                here = fixed & (truth[0] == k)
                self.steady[k] += (here & same).sum(), here.sum()
        middle = len(truths) - 1 - max(SHIFTS)
        if middle - max(SHIFTS) >= 0:
            found = edges(predictions[middle])
            for shift in SHIFTS:
                self.boundary[shift].append(boundary_f(found, edges(truths[middle - shift])))

    def scores(self) -> dict[str, object]:
        """``agreement``: share of pixels whose label is that of the same place a frame ago. ``flips_per_second``: how
        often a pixel's label changes otherwise. ``vc8_per_class``: of the pixels whose truth is one class over eight
        frames, the share whose label does not change. ``boundary_f`` of the edges, and ``edge_lag`` in frames: how old
        the truth is whose edges they meet best."""
        share = self.same / self.sure if self.sure else None
        means = [float(np.mean(self.boundary[s])) if self.boundary[s] else None for s in SHIFTS]
        known = [m for m in means if m is not None]
        return {
            "agreement": share,
            "flips_per_second": None if share is None else (1 - share) * self.rate,
            "boundary_f": means[SHIFTS.index(0)],
            "edge_lag": peak(known) if len(known) == len(SHIFTS) else None,
            "vc8_per_class": {
                name: float(same / total) if total else None
                for name, (same, total) in zip(self.names, self.steady, strict=True)
            },
        }


def watched(predict: Predict, protocol: Protocol, pictures: VideoSet, result: TemporalTally) -> Predict:
    """``predict``, whose label maps are also counted in ``result``; ``pictures`` has the frames as they were."""
    table = label_table(len(pictures.classes), protocol.classes)

    def predicted(videos: VideoSet, video: int) -> Iterator[Labels | None]:
        labelled = set(pictures.labelled(video))
        last: tuple[npt.NDArray[np.uint8], Labels] | None = None
        truths: list[Labels] = []
        found: list[Labels] = []
        for index, labels in enumerate(predict(videos, video)):
            yield labels
            if labels is None:
                last, truths, found = None, [], []
                continue
            frame = pictures.frame(video, index)
            if last is not None and last[1].shape == labels.shape and frame.shape == last[0].shape:
                result.pair((frame, last[0]), (labels, last[1]))
            last = (frame, labels)
            if index not in labelled or (truths and truths[-1].shape != labels.shape):
                truths, found = [], []
                continue
            truth = table[pictures.mask(video, index)]
            if truth.shape != labels.shape:
                continue
            truths, found = [*truths[-WINDOW:], truth], [*found[-WINDOW:], labels]
            result.labelled(truths, found)

    return predicted
