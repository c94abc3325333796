"""A training-free model in torch: as an engine for streams, and as the reference of roll-outs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ov2vss.model.training_free import TrainingFree
from ov2vss.text import TextEncoder
from ov2vss_runtime.engines.engine import Arrays, Capabilities, FrameFeatures


class ClipFrames:
    """Frames in order to logits, kept as a plain list of features: what a roll-out is compared with.

    It has the methods of a stream that a roll-out uses (:class:`ov2vss_runtime.bundle.rollout.Rolled`).
    """

    def __init__(self, model: TrainingFree, embeddings: npt.NDArray[np.float32]) -> None:
        self.model, self.words = model, torch.from_numpy(embeddings)
        self.reset()

    def reset(self) -> None:
        self.seen: list[Tensor] = []

    def set_last(self, frame: npt.NDArray[np.uint8]) -> None:
        """There is no distant frame."""

    @torch.no_grad()
    def logits(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """``[N, h, w]`` of the next frame."""
        guidance = self.model.encode(torch.from_numpy(frame)[None])[0]
        if self.model.affinity is not None:
            guidance = self.model.affinity(guidance, self.seen[-1] if self.seen else torch.zeros_like(guidance))
            self.seen.append(guidance)
        return self.model.decode(guidance, self.words).numpy()

    @torch.no_grad()
    def advance(self, frame: npt.NDArray[np.uint8]) -> None:
        """Let the memory see a frame whose logits nobody needs."""
        if self.model.affinity is not None:
            guidance = self.model.encode(torch.from_numpy(frame)[None])[0]
            before = self.seen[-1] if self.seen else torch.zeros_like(guidance)
            self.seen.append(self.model.affinity(guidance, before))


class ClipEngine:
    """The same behind the interface of engines (:class:`ov2vss_runtime.engines.engine.Engine`)."""

    def __init__(self, model: TrainingFree, text_encoder: TextEncoder) -> None:
        self.model, self.size, self.text_encoder = model.eval(), model.size, text_encoder
        self.can = Capabilities(distant=False, warmup=0, cut=None)

    @torch.inference_mode()
    def backbone(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        return FrameFeatures(None, self.model.encode(torch.from_numpy(frame)[None])[0])

    def feature(self, features: FrameFeatures, name: str) -> npt.NDArray[np.float32]:
        return features.payload.numpy()

    def initial_state(self) -> None:
        return None

    def blame(self, features: FrameFeatures, guidance: Any) -> str:
        return "decoder" if bool(torch.isfinite(guidance).all()) else "backbone"

    @torch.inference_mode()
    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[Tensor, Tensor | None]:
        return self.model.step(features.payload, state)

    @torch.inference_mode()
    def decode(
        self, features: FrameFeatures, guidance: Any, embeddings: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        return self.model.decode(guidance, torch.from_numpy(embeddings)).numpy()

    def labels(self, features: FrameFeatures, guidance: Any, embeddings: Any, size: tuple[int, int]) -> Any:
        raise NotImplementedError("can.device_labels is false")

    def encode_text(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return self.text_encoder.encode(texts).numpy()

    def to_host(self, value: Tensor | None) -> Arrays:
        return {} if value is None else {"tensor": value.numpy()}

    def from_host(self, arrays: Arrays) -> Tensor | None:
        return torch.from_numpy(arrays["tensor"]) if arrays else None
