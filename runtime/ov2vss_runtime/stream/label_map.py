"""From logits at stride 8 to a label map at the video's own size: bilinear upsampling and argmax in one pass.

The same as ``argmax(interpolate(logits, size, mode="bilinear", align_corners=False), dim=0)``, without the
``[N, h, w]`` tensor in between. The native kernel visits each cell of four corner values once, drops the classes that
cannot win anywhere in it, and interpolates only the rest. Without the extension OpenCV does the same more slowly.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import import_module
from types import ModuleType

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import OV2VSSError

Labels = npt.NDArray[np.uint8 | np.uint16]


@lru_cache(maxsize=1)
def native() -> ModuleType | None:
    """The compiled kernels, or None (logged once) where the package was built without a compiler."""
    try:
        return import_module("ov2vss_runtime._native")
    except ImportError:
        logging.getLogger("ov2vss.runtime").info("no native kernels: label maps are made with OpenCV (slower)")
        return None


def label_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """uint8 up to 254 classes, uint16 above; the largest value stays free for "unknown"."""
    return np.uint8 if classes <= 254 else np.uint16


def label_map(
    logits: npt.NDArray[np.float32],
    size: tuple[int, int],
    threads: int = 1,
    confidence: npt.NDArray[np.float32] | None = None,
) -> Labels:
    """Label of every pixel.

    Args:
        logits: ``[N, h, w]`` float32.
        size: ``(H, W)`` of the label map, any size.
        threads: threads of the native kernel.
        confidence: float32 ``[H, W]`` that is filled with the label's share of the softmax over the classes.

    Returns:
        ``[H, W]``, uint8 or uint16 (above 254 classes); on exact ties the lower index.
    """
    if logits.ndim != 3 or 0 in logits.shape:
        raise OV2VSSError(f"logits of shape {logits.shape}", "pass a non-empty float32 array [N, h, w]")
    kernels = native()
    if kernels is None:
        return label_map_numpy(logits, size, confidence)
    labels: Labels = np.empty(size, label_type(logits.shape[0]))
    kernels.label_map(np.ascontiguousarray(logits, np.float32), labels, max(1, threads), confidence)
    return labels


def label_map_numpy(
    logits: npt.NDArray[np.float32], size: tuple[int, int], confidence: npt.NDArray[np.float32] | None = None
) -> Labels:
    """The fallback: upsample one class at a time with OpenCV and keep a running maximum (and a running softmax)."""

    def upsampled(index: int) -> npt.NDArray[np.float32]:
        plane = np.ascontiguousarray(logits[index], np.float32)
        return cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)

    best = upsampled(0)
    labels: Labels = np.zeros(size, label_type(logits.shape[0]))
    total = np.ones(size, np.float32)  # sum of exp(logit - best)
    for index in range(1, logits.shape[0]):
        value = upsampled(index)
        wins = value > best
        if confidence is not None:
            gap = np.exp(-np.abs(value - best))
            total = np.where(wins, total * gap + 1, total + gap)
        np.copyto(labels, index, where=wins, casting="unsafe")
        np.maximum(best, value, out=best)
    if confidence is not None:
        np.divide(1, total, out=confidence)
    return labels
