"""Recipe ``neighbour``, after NACLIP: patches attend to patches with similar keys, most of all to those near them.

The last block becomes ``out_proj(softmax(k k^T / sqrt(d) + w) v)`` without residual and MLP. ``w`` is
``exp(-distance^2 / (2 * 5^2))`` between two patches, counted in patches, and 0 for the class token, which is a key
and a value here but no query.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ov2vss.model.dense.tower import ClipTower, heads_of, joined, through
from ov2vss.model.pooling import Grid

SPREAD = 5.0
"""Standard deviation of the neighbourhood in patches."""


@lru_cache(maxsize=16)
def neighbourhood(grid: Grid) -> np.ndarray:
    """``w`` of every patch and every key, the class token first: float32 ``[rows * columns, 1 + rows * columns]``."""
    y, x = (axis.reshape(-1).astype(np.float64) for axis in np.mgrid[: grid[0], : grid[1]])
    distance = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    weights = np.exp(-distance / (2 * SPREAD**2))
    return np.concatenate([np.zeros((len(y), 1)), weights], axis=1).astype(np.float32)


class NeighbourDense(ClipTower):
    """Key-key attention with a neighbourhood in the last block."""

    recipe = "neighbour"
    constants: ClassVar[dict[str, float]] = {"spread": SPREAD}

    def last(self, x: Tensor, grid: Grid) -> Tensor:
        *blocks, last = self.visual.transformer.resblocks
        key, value = heads_of(last, last.ln_1(through(blocks, x)), "kv")
        near = torch.from_numpy(neighbourhood(grid)).to(x)
        scores = key[:, :, 1:] @ (key * key.shape[-1] ** -0.5).transpose(2, 3) + near
        return last.ls_1(last.attn.out_proj(joined(torch.softmax(scores, dim=-1) @ value)))
