"""The trained torch model behind the runtime's engine interface: the same stream, without exported graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ov2vss.model import OV2VSS
from ov2vss.text import TextEncoder
from ov2vss_runtime.engines.engine import FrameFeatures


class TorchEngine:
    """Engine over :class:`OV2VSS` in evaluation mode. Ablated models run too: missing parts are left out.

    Args:
        model: the network.
        size: (H, W) of frames.
        text_encoder: the frozen encoder of the model.
    """

    def __init__(self, model: OV2VSS, size: tuple[int, int], text_encoder: TextEncoder) -> None:
        self.model, self.size, self.text_encoder = model.eval(), size, text_encoder
        self.references = model.config.references
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
        frame, model = features.payload, self.model
        if not model.config.stcf:
            return model.guidance(model.fuse(frame, None), context, frame.position), None
        if state is None:
            shape = (1, self.references, *frame.tokens.shape[1:])
            state = torch.zeros(shape, dtype=frame.tokens.dtype, device=frame.tokens.device)
        guidance = model.guidance(model.fuse(frame, state[:, -1]), context, frame.position)
        return guidance, model.stcf.advance(frame.tokens, state, frame.lattice)

    @torch.inference_mode()
    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        dense, model = features.payload.dense, self.model
        memory = model.text_refinement.memory(dense) if model.config.vte else None
        text = self._tensor(embeddings).to(self.parameter.dtype)
        return model.decode(guidance, dense, memory, text)[0].cpu().numpy()

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return self.text_encoder.encode(texts).numpy()


class PerFrameEngine(TorchEngine):
    """The per-frame baseline of the same weights: every reference and the distant frame are frame t itself."""

    @torch.inference_mode()
    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Tensor, None]:
        frame, model = features.payload, self.model
        past = model.stcf.chain([frame.tokens] * self.references, frame.lattice) if model.config.stcf else None
        return model.guidance(model.fuse(frame, past), features.context, frame.position), None
