"""Labels from logits on the processor: the one place where they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import Engine, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.label_map import Labels, label_map
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.propagation import Propagator


class Labeller:
    """Makes label maps, and confidence where it is asked for or decides what is unknown.

    Args:
        options: ``confidence`` and ``unknown_below``.
        threads: of the kernels.
        past: what frames are blended with; None for frames on their own.
    """

    def __init__(self, options: StreamOptions, threads: int, past: Propagator | None) -> None:
        self._below, self._threads, self._past = options.unknown_below, threads, past
        self.needs_confidence = options.needs_confidence

    def confidence(self, size: tuple[int, int]) -> npt.NDArray[np.float32] | None:
        """Where the confidence of a frame of ``size`` goes; None if nobody needs it."""
        return np.empty(size, np.float32) if self.needs_confidence else None

    def blank(self, labels: Labels, confidence: npt.NDArray[np.float32] | None) -> None:
        """Make pixels unknown whose confidence is too low, in place."""
        if confidence is not None and self._below > 0:
            labels[confidence < self._below] = np.iinfo(labels.dtype).max

    def __call__(
        self, logits: npt.NDArray[np.float32] | None, words: tuple[int, bytes], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32] | None, Labels, npt.NDArray[np.float32] | None]:
        """One frame.

        Args:
            logits: ``[N, h, w]`` at the model's size; None: all of them are the past's, moved along the flow.
            words: what the rows of the logits mean; logits of other words are not blended with them.
            size: (H, W) of the labels.

        Returns:
            The logits with what they take from the past, None where they stay on a device; index into their rows, or
            unknown, of every pixel; and confidence, if it is needed.
        """
        confidence = self.confidence(size)
        if self._past is None:
            assert logits is not None
            labels = label_map(logits, size, self._threads, confidence)
        elif logits is None:
            logits, labels = self._past.carry(size, confidence)
        else:
            logits, labels = self._past.blend(logits, words, size, confidence)
        self.blank(labels, confidence)
        return logits, labels, confidence


def check_finite(
    logits: npt.NDArray[np.float32], engine: Engine, features: FrameFeatures, guidance: Any, frame: int
) -> None:
    """NaN would win nowhere and be the first word everywhere. One sum is enough to see it.

    Raises:
        OV2VSSError: with the number of the ``frame`` and the graph that began it.
    """
    if not np.isfinite(logits.sum()) and not np.isfinite(logits).all():
        raise OV2VSSError(
            f"frame {frame}: graph {engine.blame(features, guidance)} gave numbers that are not finite",
            "use another --precision or --backend, and check the bundle with ov2vss-export --verify-only",
        )
