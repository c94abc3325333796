"""Test pictures made worse, the same at every run: what does a model see in noise, blur, compression or lost blocks?"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.data.source import VideoSet
from ov2vss.errors import OV2VSSError

KINDS = {
    "noise": (0.0, 255.0, "standard deviation in grey levels"),
    "blur": (0.0, 100.0, "standard deviation of the Gaussian in pixels"),
    "jpeg": (1.0, 100.0, "quality"),
    "drop": (0.0, 1.0, "share of blocks that are lost"),
}
BLOCK = 32
"""Side of a lost block in pixels; it is grey."""


def parse_degrade(text: str) -> tuple[str, float]:
    """``"jpeg:8"`` -> ``("jpeg", 8.0)``."""
    kind, _, level = text.partition(":")
    try:
        value = float(level)
    except ValueError:
        value = float("nan")
    if kind not in KINDS or not KINDS[kind][0] <= value <= KINDS[kind][1]:
        known = "; ".join(f"{name}:{low:g} to {high:g} ({what})" for name, (low, high, what) in KINDS.items())
        raise OV2VSSError(f"degradation {text!r}", f"write KIND:LEVEL: {known}")
    return kind, value


def degrade(frame: npt.NDArray[np.uint8], kind: str, level: float, seed: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A worse copy of an RGB frame ``[h, w, 3]``; the same ``seed`` gives the same one."""
    random = np.random.default_rng(seed)
    if kind == "noise":
        worse = frame + level * random.standard_normal(frame.shape, np.float32)
        return np.clip(np.rint(worse), 0, 255).astype(np.uint8)
    if kind == "blur":
        return cv2.GaussianBlur(frame, (0, 0), level) if level else frame.copy()
    if kind == "jpeg":
        # The chroma of JPEG is OpenCV's default: half the resolution.
        data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(level)])[1]
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded in the line before
        return np.ascontiguousarray(decoded[..., ::-1])
    h, w = frame.shape[:2]
    lost = random.random((-(-h // BLOCK), -(-w // BLOCK))) < level
    worse = frame.copy()
    worse[np.repeat(np.repeat(lost, BLOCK, 0), BLOCK, 1)[:h, :w]] = 128
    return worse


class Degraded:
    """A data set whose frames are made worse; everything else is the data set's own."""

    def __init__(self, videos: VideoSet, kind: str, level: float) -> None:
        self._videos, self._kind, self._level = videos, kind, level

    def __getattr__(self, name: str) -> Any:
        return getattr(self._videos, name)

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        """RGB ``[h, w, 3]``."""
        return degrade(self._videos.frame(video, index), self._kind, self._level, (video, index))
