"""Multi-head cross-attention with the keys and values as an explicit, reusable value."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """``out(softmax(q k^T / sqrt(d)) v)`` with ``heads`` heads.

    The memory (keys and values) is computed by :meth:`memory`, so that it can be made once a frame and used for any
    number of classes. Written out rather than through scaled_dot_product_attention, because opset 23's Attention
    operator does not build in TensorRT-RTX.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def memory(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, S, C] -> keys, values``, each ``[B, S, C]``."""
        return self.key(source), self.value(source)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``x [B, T, C]``, ``keys, values [B, S, C]`` -> ``[B, T, C]``."""
        q, k, v = (self.split(y) for y in (self.query(x) * self.scale, keys, values))
        weights = torch.softmax(q @ k.transpose(2, 3), dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` -> its heads, ``[B, heads, T, C / heads]``."""
        return x.unflatten(-1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)
