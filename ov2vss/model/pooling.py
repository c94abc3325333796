"""Pyramid pooling on the stride-32 lattice (f of Eq. 2).

Every backbone level is first averaged to the same ``h32 x w32`` lattice, then to its 1/1, 1/2, 1/3 and 1/4 grids, so
that token ``m`` is the same region of the image at every level. Averaging is linear, so it commutes with the 1x1
projections and with the affine steps of the STCF recursion; the rest of the model relies on that.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.config import LATTICE_STRIDE, POOL_RATIOS, STRIDES

Grid = tuple[int, int]


def pool_grids(lattice: Grid) -> list[Grid]:
    """The four token grids ``(rows, columns)`` of a lattice; their areas add up to M."""
    return [(ceil(lattice[0] / r), ceil(lattice[1] / r)) for r in POOL_RATIOS]


@lru_cache(maxsize=64)
def average_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Adaptive average pooling of one axis as a float64 matrix ``[size_out, size_in]``; rows sum to one.

    Same bins as ``torch.nn.functional.adaptive_avg_pool1d``. A constant matrix instead of the operator, because grids
    that do not divide the input turn into dozens of gathers when exported.
    """
    matrix = np.zeros((size_out, size_in))
    for i in range(size_out):
        start, stop = (i * size_in) // size_out, -((-(i + 1) * size_in) // size_out)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


@lru_cache(maxsize=64)
def _coarse_grids_matrix(lattice: Grid) -> np.ndarray:
    """Lattice cells -> tokens of the three coarser grids, float64 ``[M - h32*w32, h32*w32]``."""
    return np.concatenate(
        [np.kron(average_matrix(lattice[0], h), average_matrix(lattice[1], w)) for h, w in pool_grids(lattice)[1:]]
    )


def resize_average(x: Tensor, size: Grid) -> Tensor:
    """Average ``x [B, C, h, w]`` down to ``size`` (adaptive bins; exact means when the sizes divide)."""
    h, w = x.shape[-2:]
    if h % size[0] == 0 and w % size[1] == 0:
        kernel = (h // size[0], w // size[1])
        return x if kernel == (1, 1) else F.avg_pool2d(x, kernel)
    rows = torch.from_numpy(average_matrix(h, size[0])).to(x)
    columns = torch.from_numpy(average_matrix(w, size[1])).to(x)
    return rows @ x @ columns.T


def pool_tokens(level: Tensor, stride: int) -> Tensor:
    """Average one backbone level to its M tokens: ``[B, C, H/stride, W/stride] -> [B, M, C]``."""
    kernel = LATTICE_STRIDE // stride
    x = F.avg_pool2d(level, kernel) if kernel > 1 else level
    lattice = (x.shape[-2], x.shape[-1])
    fine = x.flatten(2).transpose(1, 2)
    coarse = torch.from_numpy(_coarse_grids_matrix(lattice)).to(fine) @ fine
    return torch.cat([fine, coarse], dim=1)


class LevelLinear(nn.Module):
    """One fully-connected layer per backbone level: ``[B, L, M, C_in] -> [B, L, M, C_out]``."""

    def __init__(self, levels: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = width_in**-0.5
        self.weight = nn.Parameter(torch.empty(levels, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(levels, 1, width_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class TokenMixer(nn.Module):
    """f of Eq. 2 after the averaging: per grid ``x + depthwise3x3(x)``, then LayerNorm; separate weights per level.

    Tokens ``[B, L, M, C] -> [B, L, M, C]``.
    """

    def __init__(self, width: int, levels: int = len(STRIDES)) -> None:
        super().__init__()
        self.levels, self.width = levels, width
        channels = levels * width
        self.depthwise = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in POOL_RATIOS
        )
        self.norm_weight = nn.Parameter(torch.ones(levels, 1, width))
        self.norm_bias = nn.Parameter(torch.zeros(levels, 1, width))

    def forward(self, tokens: Tensor, lattice: Grid) -> Tensor:
        batch = tokens.shape[0]
        grids = pool_grids(lattice)
        mixed = []
        for conv, (h, w), x in zip(self.depthwise, grids, tokens.split([prod(g) for g in grids], dim=2), strict=True):
            x = x.transpose(2, 3).reshape(batch, self.levels * self.width, h, w)
            x = x + conv(x)
            mixed.append(x.reshape(batch, self.levels, self.width, h * w).transpose(2, 3))
        x = F.layer_norm(torch.cat(mixed, dim=2), (self.width,))
        return x * self.norm_weight + self.norm_bias
