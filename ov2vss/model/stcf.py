"""Spatial-temporal context fusion (Eqs. 2-6).

There is no softmax in the affinity (Eq. 4), so ``A V = Q (K^T V)`` is affine in the frame's features, and average
pooling commutes with affine maps. Every recursion step therefore needs only the M pooled tokens of its frame: this
is exact, and it is what makes the state of a stream small. ``tests/model/test_stcf.py`` holds the explicit form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.config import STRIDES
from ov2vss.model.pooling import Grid, LevelLinear, TokenMixer

QUERY_STRIDES = STRIDES[1:]
"""Levels at which the target's affinity is formed; at stride 4 it would be too large."""


class RecursionStep(nn.Module):
    """One link of the chain: ``D_k = f_k(pool(Q(U) K^T V / M))``, computed on pooled tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.query = LevelLinear(len(STRIDES), width, width)
        self.key = LevelLinear(len(STRIDES), width, width)
        self.value = LevelLinear(len(STRIDES), width, width)
        self.mix = TokenMixer(width)

    def forward(self, tokens: Tensor, past: Tensor, lattice: Grid) -> Tensor:
        """``tokens``: pool(U) of this frame; ``past``: D_{k-1}; both and the result ``[B, 4, M, C]``."""
        context = self.key(past).transpose(2, 3) @ self.value(past) / past.shape[2]
        return self.mix((self.query(tokens) * self.scale) @ context, lattice)


class ConvNormReLU(nn.Module):
    """conv(1 -> 1) + GroupNorm(1, 1) + ReLU on every affinity map: ``[B, M, h, w] -> [B, M, h, w]``.

    Each of the M maps is a one-channel image of its own. The convolution is written as a depthwise one over M channels
    with a shared kernel, which engines run much faster than a batch of M one-channel images.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(1, 1, kernel, kernel), a=5**0.5))
        self.gain = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        maps = x.shape[1]
        x = F.conv2d(x, self.weight.expand(maps, 1, -1, -1), padding=self.kernel // 2, groups=maps)
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x * torch.rsqrt(x.square().mean(dim=(2, 3), keepdim=True) + 1e-5)
        return F.relu(x * self.gain + self.offset)


class AffinityPyramid(nn.Module):
    """Cross-scale aggregation of the target's affinities (Eq. 5), deepest first, over query space."""

    def __init__(self) -> None:
        super().__init__()
        self.level_s8, self.level_s16, self.level_s32 = ConvNormReLU(5), ConvNormReLU(5), ConvNormReLU(3)
        self.merge_s16, self.merge_s8 = ConvNormReLU(3), ConvNormReLU(3)

    def forward(self, a_s8: Tensor, a_s16: Tensor, a_s32: Tensor) -> Tensor:
        """``[B, M, h, w]`` at strides 8, 16, 32 -> B ``[B, M, H/8, W/8]``, non-negative."""
        b = self.merge_s16(upsample(self.level_s32(a_s32), a_s16.shape[-2:]) + self.level_s16(a_s16))
        return self.merge_s8(upsample(b, a_s8.shape[-2:]) + self.level_s8(a_s8))


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class SpatialTemporalFusion(nn.Module):
    """STCF: a chain of pooled states over the references, and the fusion of the last one with the target frame.

    A state of a frame is ``[B, n, 4, M, C]``: D_0 .. D_{n-1} for the four levels. With ``residual``, O_t has a direct
    path from the target frame beside Eq. 6: a 1x1 convolution of each query, upsampled and added.
    """

    def __init__(self, width: int, references: int, residual: bool = False) -> None:
        super().__init__()
        levels = len(STRIDES)
        self.scale = width**-0.5
        self.first = TokenMixer(width)
        self.steps = nn.ModuleList(RecursionStep(width) for _ in range(references - 1))
        self.queries = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in QUERY_STRIDES)
        self.key = LevelLinear(len(QUERY_STRIDES), width, width)
        self.value = LevelLinear(levels, width, width)
        self.merge_values = nn.Linear(levels * width, width)
        self.pyramid = AffinityPyramid()
        self.residual = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in QUERY_STRIDES) if residual else None

    def advance(self, tokens: Tensor, state: Tensor, lattice: Grid) -> Tensor:
        """State of this frame from its tokens ``[B, 4, M, C]`` and the state of the frame ``gap`` earlier."""
        chain = [self.first(tokens, lattice)]
        chain += [step(tokens, state[:, k], lattice) for k, step in enumerate(self.steps)]
        return torch.stack(chain, dim=1)

    def chain(self, references: list[Tensor], lattice: Grid) -> Tensor:
        """D_{n-1} of the last of n reference frames (tokens, oldest first): what :meth:`fuse` takes."""
        past = self.first(references[0], lattice)
        for step, tokens in zip(self.steps, references[1:], strict=True):
            past = step(tokens, past, lattice)
        return past

    def target_queries(self, levels: list[Tensor]) -> list[Tensor]:
        """Q_t of the projected levels U at strides 8, 16, 32, scaled by 1/sqrt(C)."""
        return [query(u) * self.scale for query, u in zip(self.queries, levels, strict=True)]

    def fuse(self, queries: list[Tensor], past: Tensor) -> Tensor:
        """O_t ``[B, C, H/8, W/8]`` from the target's queries and D_{n-1} ``[B, 4, M, C]`` (Eqs. 4-6)."""
        batch, _, count, _ = past.shape
        keys = self.key(past[:, 1:])
        affinities = [(keys[:, i] @ q.flatten(2)).reshape(batch, count, *q.shape[-2:]) for i, q in enumerate(queries)]
        b = self.pyramid(*affinities)
        values = self.value(past).transpose(1, 2).flatten(2)
        merged = self.merge_values(values) / count
        o_t = (merged.transpose(1, 2) @ b.flatten(2)).reshape(batch, -1, *b.shape[-2:])
        for conv, query in zip(self.residual or (), queries, strict=bool(self.residual)):
            o_t = o_t + upsample(conv(query / self.scale), o_t.shape[-2:])
        return o_t
