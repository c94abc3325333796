"""Norms, similarities and comparisons of the recipes: small modules that stay in float32 in every precision.

An fp16 export keeps each operator of the classes in this file in float32, whatever the modules that use them are named
(:mod:`ov2vss_export.fp16`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.pooling import Grid


class Unit(nn.Module):
    """Vectors of the last axis at unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Cosines(nn.Module):
    """Cosines between the vectors ``[B, n, width]`` of a frame, those below ``least`` set to 0: ``[B, n, n]``."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=-1)
        cosines = unit @ unit.transpose(1, 2)
        return torch.where(cosines < self.least, 0.0, cosines)


class RowShares(nn.Module):
    """A matrix ``[B, n, n]`` with rows that add up to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.sum(-1, keepdim=True) + 1e-6)


class Emphasis(nn.Module):
    """Attention from similarities ``[B, n, n]``: softmax of ``factor`` times what exceeds the mean of the whole matrix;
    what is below it takes no part."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        above = self.factor * (x - x.mean((1, 2), keepdim=True))
        return torch.softmax(torch.where(above < 0, -1e4, above), dim=-1)


@lru_cache(maxsize=16)
def identity(size: int) -> np.ndarray:
    """float32 ``[size, size]``, as a constant: from 256 places on, ``torch.eye`` is exported as a comparison of uint16
    numbers, which TensorRT does not read."""
    return np.eye(size, dtype=np.float32)


class Outliers(nn.Module):
    """Patches that the class token attends to more than they do themselves, the strongest ones.

    Args:
        count: so many at most.
        factor: what the class token's attention is multiplied with before it is compared.
    """

    def __init__(self, count: int, factor: float) -> None:
        super().__init__()
        self.count, self.factor = count, factor

    def forward(self, attention: Tensor) -> Tensor:
        """Attention of class token and patches ``[B, heads, 1 + n, 1 + n]`` -> 1 for outliers, else 0: ``[B, n]``."""
        mean = attention.mean(1)
        from_class = self.factor * mean[:, 0, 1:]
        own = (mean[:, 1:, 1:] * torch.from_numpy(identity(from_class.shape[1])).to(mean)).sum(-1)
        strength = torch.where(from_class > own, from_class, 0.0)
        least = strength.topk(min(self.count, strength.shape[1])).values[:, -1:]
        return ((strength >= least) & (strength > 0)).to(attention.dtype)


class Fill(nn.Module):
    """Outliers become the mean of their neighbours (3 x 3) that are none; one without such neighbours stays."""

    def forward(self, x: Tensor, outliers: Tensor, grid: Grid) -> Tensor:
        """Patches ``[B, n, width]``, outliers ``[B, n]``."""
        clean = (1 - outliers)[:, None].unflatten(2, grid)
        maps = x.transpose(1, 2).unflatten(2, grid) * clean
        # Both averages count the same nine places, padding included.
        count = F.avg_pool2d(clean, 3, 1, 1).flatten(2).transpose(1, 2)
        total = F.avg_pool2d(maps, 3, 1, 1).flatten(2).transpose(1, 2)
        replaced = outliers[..., None] * (count > 0.05)
        return x * (1 - replaced) + replaced * total / torch.clamp(count, min=0.05)
