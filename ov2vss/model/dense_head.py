"""F^V without CLIP: a small trained head that maps backbone features into the text encoder's space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.config import STRIDES
from ov2vss.model.pooling import resize_average
from ov2vss.model.stcf import upsample


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``[B, C, h, w]``: the same for every frame size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Depthwise 5x5, then a two-layer pointwise block, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            ChannelNorm(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class DenseHead(nn.Module):
    """Dense vision-language features at stride 16 from all backbone levels, unit length per pixel."""

    stride = 16

    def __init__(self, channels: list[int], width: int, embed_dim: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.norm = ChannelNorm(width)
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.project = nn.Conv2d(width, embed_dim, 1)

    def forward(self, frame: Tensor, levels: list[Tensor]) -> Tensor:
        """Raw backbone levels -> ``[B, D, h, w]``.

        ``frame``, RGB in [0, 1], gives only the size here; encoders with a trunk of their own read it.
        """
        size = (frame.shape[-2] // self.stride, frame.shape[-1] // self.stride)
        total = None
        for conv, level, stride in zip(self.lateral, levels, STRIDES, strict=True):
            # A 1x1 convolution commutes with averaging and with bilinear interpolation: take the smaller map.
            x = conv(resize_average(level, size)) if stride < self.stride else conv(level)
            x = upsample(x, size) if stride > self.stride else x
            total = x if total is None else total + x
        return F.normalize(self.project(self.blocks(self.norm(total))), dim=1)
