"""Random-frame enhancement (Eqs. 8-10): the target attends to region vectors of a temporally distant frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.attention import Attention
from ov2vss.model.config import STRIDES
from ov2vss.model.pooling import Grid, TokenMixer


class RegionContext(nn.Module):
    """L_r, the R region vectors of the distant frame (Eqs. 8 and 9)."""

    def __init__(self, width: int, regions: int) -> None:
        super().__init__()
        self.mix = TokenMixer(width)
        self.merge = nn.Linear(len(STRIDES) * width, width)
        self.region_maps = nn.Linear(width, regions)

    def forward(self, tokens: Tensor, lattice: Grid) -> Tensor:
        """Tokens ``[B, 4, M, C]`` of the distant frame -> ``[B, R, C]``."""
        d_random = self.merge(self.mix(tokens, lattice).transpose(1, 2).flatten(2))
        assignment = F.softmax(self.region_maps(d_random), dim=1)
        return assignment.transpose(1, 2) @ d_random


class RandomFrameEnhancement(nn.Module):
    """Multi-head cross-attention of O_t on the regions (Eq. 10); ``residual`` adds O_t (the paper does not)."""

    def __init__(self, width: int, heads: int, residual: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.residual = residual

    def forward(self, o_t: Tensor, regions: Tensor) -> Tensor:
        """``o_t [B, C, h, w]``, ``regions [B, R, C]`` -> ``[B, C, h, w]``."""
        pixels = o_t.flatten(2).transpose(1, 2)
        out = self.attention(pixels, *self.attention.memory(regions)).transpose(1, 2).reshape(o_t.shape)
        return o_t + out if self.residual else out
