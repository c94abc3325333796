"""A target frame that is hard to see while the frames before it are clear: looking back is the only way to be right."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.evaluate.degrade import degrade

KINDS = ("noise", "blur", "jpeg", "drop", "cover")
LEVELS = {"noise": (20.0, 70.0), "blur": (1.0, 4.0), "jpeg": (4.0, 20.0), "drop": (0.05, 0.3)}
COVERED = (0.02, 0.15)
"""Share of the frame that each thing in the way covers."""


def worsen(frame: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A worse copy of an RGB frame ``[h, w, 3]``: noise, blur, compression, lost blocks, or things in the way; its
    labels stay what they were."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "cover":
        return covered(frame, rng)
    return degrade(frame, kind, float(rng.uniform(*LEVELS[kind])), (int(rng.integers(2**31)),))


def covered(frame: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One to three discs and bars of random colours over a frame."""
    worse, (h, w) = frame.copy(), frame.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        area, place = rng.uniform(*COVERED) * h * w, rng.uniform(0, (w, h))
        stretch, angle = np.exp(rng.uniform(-1.2, 1.2)), float(rng.uniform(0, 180))
        axes = np.sqrt(area / np.pi) * np.array([stretch, 1 / stretch])
        colour = rng.integers(0, 256, 3).tolist()
        centre = (round(place[0]), round(place[1]))
        if rng.random() < 0.5:
            cv2.ellipse(worse, centre, (round(axes[0]), round(axes[1])), angle, 0, 360, colour, -1)
        else:
            box = cv2.boxPoints((centre, (float(1.8 * axes[0]), float(1.8 * axes[1])), angle))
            cv2.fillPoly(worse, [np.rint(box).astype(np.int32)], colour)
    return worse
