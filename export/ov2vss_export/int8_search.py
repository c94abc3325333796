"""Which layers of an int8 backbone stay in float32: as few as the labels on other frames ask for."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import onnx

from ov2vss_export import torch_gates
from ov2vss_export.int8 import Quantizer
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.gates import BOUNDS
from ov2vss_runtime.engines.onnxruntime import OrtEngine

log = logging.getLogger("ov2vss")
FRAMES = 12


class LayerSearch:
    """Tries quantized backbones in the place of the bundle's own.

    Args:
        bundle: with fp32 graphs.
        quantizer: of its backbone, calibrated.
        embeddings: class embeddings ``[N, D]``.
        frames: on which labels are compared, at the bundle's size; :data:`FRAMES` of them are taken.
    """

    def __init__(
        self,
        bundle: Bundle,
        quantizer: Quantizer,
        embeddings: npt.NDArray[np.float32],
        frames: list[npt.NDArray[np.uint8]],
    ) -> None:
        self.bundle, self.quantizer, self.embeddings = bundle, quantizer, embeddings
        self.frames = frames[:: max(1, len(frames) // FRAMES)]
        self.wanted = self._labels(OrtEngine(bundle, "fp32"))

    def _labels(self, engine: OrtEngine) -> list[npt.NDArray[np.integer]]:
        return torch_gates.label_maps(engine, self.bundle.manifest, self.embeddings, self.frames)

    def _accept(self, proto: onnx.ModelProto) -> bool:
        engine = OrtEngine(self.bundle, "fp32", replace={"backbone": proto.SerializeToString()})
        pairs = zip(self._labels(engine), self.wanted, strict=True)
        return float(np.mean([(a == b).mean() for a, b in pairs])) >= (1 + BOUNDS["int8"].agreement) / 2

    def run(self, engine: str) -> tuple[onnx.ModelProto, str]:
        """The backbone for an engine, and how many layers are in int8."""
        proto, kept = self.quantizer.search(engine, self._accept, self.frames[:2])
        layers = len(self.quantizer.layers)
        note = f"{layers - len(kept)} of {layers} layers in int8"
        log.info("int8 for %s: %s", engine, note)
        return proto, note
