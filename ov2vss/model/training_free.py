"""Segmentation by CLIP alone, without training: dense features, an optional memory of them, cosines."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.dense import ClipTower
from ov2vss.model.pooling import Grid

TEMPERATURE = 40.0
"""What cosines are multiplied with. Labels do not depend on it, confidence does."""
RADIUS, AFFINITY_TEMPERATURE, SHARE = 4, 0.02, 0.5


class WindowAffinity(nn.Module):
    """Blend of a frame's features with those carried over: each place takes from the places near it in the state, by
    likeness. A state of zeros changes nothing.

    Args:
        grid: rows and columns of the features.
        share: of what is carried over.
    """

    def __init__(self, grid: Grid, share: float = SHARE) -> None:
        super().__init__()
        self.share = share
        y, x = (axis.reshape(-1) for axis in np.mgrid[: grid[0], : grid[1]])
        far = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x)) > RADIUS
        self.register_buffer("outside", torch.from_numpy(np.where(far, -1e4, 0).astype(np.float32)), persistent=False)

    def forward(self, dense: Tensor, state: Tensor) -> Tensor:
        """Unit features and state, both ``[D, h, w]`` -> the blend, unit length."""
        now, before = dense.flatten(1), state.flatten(1)
        likeness = now.T @ before / AFFINITY_TEMPERATURE + self.outside
        carried = before @ torch.softmax(likeness, dim=-1).T
        blend = (1 - self.share) * now + self.share * carried
        return F.normalize(blend, dim=0).unflatten(1, dense.shape[1:])


class TrainingFree(nn.Module):
    """A dense CLIP tower as a segmenter of one frame after the other.

    Args:
        image_encoder: the tower with its recipe.
        size: (H, W) of frames.
        temperature: of cosines.
        affinity: carry features from frame to frame.
    """

    def __init__(
        self, image_encoder: ClipTower, size: tuple[int, int], temperature: float = TEMPERATURE, affinity: bool = False
    ) -> None:
        super().__init__()
        self.image_encoder, self.size, self.temperature = image_encoder, size, temperature
        image_encoder.prepare(*size)
        self.grid = image_encoder.grid(*size)
        self.width = image_encoder.width
        self.affinity = WindowAffinity(self.grid) if affinity else None

    def encode(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 RGB ``[1, H, W, 3]`` -> unit features ``[D, h, w]``, and their averages over 2 x 2 places as tokens
        ``[1, M, D]``, for shot changes."""
        # uint8 -> float first: TensorRT-RTX has no uint8 transpose.
        image = frame.to(self.image_encoder.mean.dtype).permute(0, 3, 1, 2) / 255
        dense = self.image_encoder(image, [])
        pooled = F.avg_pool2d(dense, [min(2, side) for side in self.grid])
        return dense.squeeze(0), pooled.flatten(2).transpose(1, 2)

    def step(self, dense: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Guidance ``[D, h, w]`` and the next state; without :attr:`affinity` the features themselves, and None."""
        if self.affinity is None:
            return dense, None
        blend = self.affinity(dense, torch.zeros_like(dense) if state is None else state)
        return blend, blend

    def decode(self, guidance: Tensor, class_embeddings: Tensor) -> Tensor:
        """Unit rows ``[N, D]`` -> logits ``[N, h, w]``."""
        rows = self.temperature * class_embeddings @ guidance.flatten(1)
        return rows.unflatten(1, guidance.shape[1:])
