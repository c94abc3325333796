"""The past of one stream whose logits stay on the engine's device; flow and trust come from the processor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import BlendingEngine, FrameFeatures
from ov2vss_runtime.stream.flow import places, still
from ov2vss_runtime.stream.label_map import Labels
from ov2vss_runtime.stream.propagation import Propagator, Smoothing


class DevicePropagator(Propagator):
    """A :class:`Propagator` by the rule of the processor's, up to rounding.

    Args:
        engine: one with ``can.device_blend``.
        smoothing, smooth: as there.
    """

    def __init__(self, engine: BlendingEngine, smoothing: Smoothing | None = None, smooth: bool = True) -> None:
        self.engine = engine
        super().__init__(smoothing, smooth)

    def label(
        self,
        features: FrameFeatures,
        guidance: Any,
        embeddings: npt.NDArray[np.float32],
        words: Hashable,
        size: tuple[int, int],
    ) -> Labels:
        """Labels of a frame that the network saw, blended with the past, which its logits become."""
        logits = self.engine.device_logits(features, guidance, embeddings)
        if self.smooth and self.motion is not None and self.has(words):
            share = self.motion.trust * np.float32(self.rules.share)
            logits = self.engine.device_propagate(
                self.past, logits, places(self.motion.flow), share, self.rules.lean, self.rules.sure
            )
        self.past, self.words = logits, words
        self.cells = (int(logits.shape()[1]), int(logits.shape()[2]))
        self.motion = still(self.cells)
        return self.engine.device_labels(logits, size)

    def carry(self, size: tuple[int, int], confidence: Any = None) -> tuple[None, Labels]:
        """Labels of a frame that the network does not see; its logits stay where they are."""
        assert self.motion is not None, "has() comes first"
        rules = self.rules
        moved = self.engine.device_propagate(self.past, None, places(self.motion.flow), None, rules.lean, rules.sure)
        return None, self.engine.device_labels(moved, size)

    def save(self) -> dict[str, npt.NDArray[Any]]:
        found = super().save()
        if "past" in found:
            found |= self.engine.to_host({"past": self.past})
        return found

    def load(self, arrays: Mapping[str, npt.NDArray[Any]], words: Hashable) -> None:
        super().load(arrays, words)
        if self.past is not None:
            self.past = self.engine.from_host({"past": arrays["past"]})["past"]
