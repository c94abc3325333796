"""The trained torch model behind the runtime's engine interface: the same stream, without exported graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ov2vss.model import OV2VSS
from ov2vss.text import TextEncoder
from ov2vss_runtime.engines.engine import Arrays, Capabilities, FrameFeatures


class TorchEngine:
    """Engine over :class:`OV2VSS` in evaluation mode. Ablated models run too: missing parts are left out.

    Args:
        model: the network.
        size: (H, W) of frames.
        text_encoder: the frozen encoder of the model.
    """

    def __init__(self, model: OV2VSS, size: tuple[int, int], text_encoder: TextEncoder) -> None:
        self.model, self.size, self.text_encoder = model.eval(), size, text_encoder
        config = model.config
        self.can = Capabilities(distant=config.rfe, warmup=config.references if config.stcf else 0)
        self.parameter = next(model.parameters())

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.parameter.device)

    @torch.inference_mode()
    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        features = self.model.encode(self._tensor(frame).permute(2, 0, 1)[None])
        context = self.model.context(features.tokens, features.lattice) if self.model.config.rfe else None
        return FrameFeatures(context, features)

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        return getattr(features.payload, name)[0].float().cpu().numpy()

    def initial_state(self) -> Tensor | None:
        return None

    @torch.inference_mode()
    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Tensor, Tensor | None]:
        return self.model.step(features.payload, context, state)

    @torch.inference_mode()
    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        dense, model = features.payload.dense, self.model
        memory = model.text_refinement.memory(dense) if model.config.vte else None
        text = self._tensor(embeddings).to(self.parameter.dtype)
        return model.decode(guidance, dense, memory, text)[0].cpu().numpy()

    def labels(self, features: FrameFeatures, guidance: Any, embeddings: Any, size: tuple[int, int]) -> Any:
        raise NotImplementedError("can.device_labels is false")

    def blame(self, features: FrameFeatures, guidance: Any) -> str:
        return "decoder" if bool(torch.isfinite(guidance).all()) else "stcf_step"

    def to_host(self, value: Tensor | None) -> Arrays:
        return {} if value is None else {"tensor": value.float().cpu().numpy()}

    def from_host(self, arrays: Arrays) -> Tensor | None:
        return self._tensor(arrays["tensor"]).to(self.parameter.dtype) if arrays else None

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return self.text_encoder.encode(texts).numpy()


class PerFrameEngine(TorchEngine):
    """The per-frame baseline of the same weights: every reference and the distant frame are frame t itself."""

    def __init__(self, model: OV2VSS, size: tuple[int, int], text_encoder: TextEncoder) -> None:
        super().__init__(model, size, text_encoder)
        self.can = Capabilities(distant=False, warmup=0)

    @torch.inference_mode()
    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Tensor, None]:
        frame, model, n = features.payload, self.model, self.model.config.references
        past = None
        if model.config.stcf:
            past = model.past([frame.tokens] * n, [frame.queries] * n, frame.lattice)
        return model.guidance(model.fuse(frame, past), features.context, frame.position), None
