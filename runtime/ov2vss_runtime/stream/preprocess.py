"""From a decoded frame to what the graphs take: used by training, evaluation and the runtime alike."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import OV2VSSError

STRIDE = 32
"""Frame sides are multiples of this."""
ASPECT_TOLERANCE = 0.10


def snap(size: tuple[int, int]) -> tuple[int, int]:
    """The nearest ``(H, W)`` whose sides are multiples of 32 (at least 64, so that stride 32 keeps a lattice)."""
    return tuple(max(2 * STRIDE, round(side / STRIDE) * STRIDE) for side in size)  # type: ignore[return-value]


def parse_size(text: str) -> tuple[int, int]:
    """``"352x640"`` (height x width) -> ``(352, 640)``, not snapped."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.strip().isdigit() and 0 < int(p) <= 16384 for p in parts):
        raise OV2VSSError(f"size {text!r} is not HEIGHTxWIDTH", "write it like 352x640", usage=True)
    return int(parts[0]), int(parts[1])


def resize_frame(rgb: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Stretch an RGB frame ``[h, w, 3]`` to ``size = (H, W)``; no letterbox, no crop.

    Bilinear, or area averaging where a side shrinks by more than two. A frame that has the size already is returned as
    it is, without a copy.
    """
    h, w = rgb.shape[:2]
    if (h, w) == tuple(size):
        return rgb
    shrink = max(h / size[0], w / size[1])
    return cv2.resize(rgb, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrink > 2 else cv2.INTER_LINEAR)


def aspect_differs(source: tuple[float, float], target: tuple[int, int]) -> bool:
    """Whether stretching ``source`` (h, w) to ``target`` (H, W) changes the aspect by more than ten per cent."""
    ratio = (source[1] / source[0]) / (target[1] / target[0])
    return max(ratio, 1 / ratio) > 1 + ASPECT_TOLERANCE


def suggest_size(size: tuple[int, int], aspect: float) -> str:
    """A ``--size`` with about the area of ``size`` (H, W) for pictures of an aspect (width over height)."""
    height = (size[0] * size[1] / aspect) ** 0.5
    h, w = snap((round(height), round(height * aspect)))
    return f"{h}x{w}"
