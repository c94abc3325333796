"""Which module gives the dense vision-language features F^V.

An image encoder is a module ``(frame, levels) -> F^V``: ``frame`` RGB in [0, 1] ``[B, 3, H, W]``, ``levels`` the raw
backbone maps at strides 4, 8, 16 and 32, and the result ``[B, D, hc, wc]`` of unit length per pixel, on a grid of the
encoder's own choice. The rest of the model takes the grid from the result. To add one, write its module in a file of
its own, name it in ``ModelConfig.image_encoder`` and build it here.
"""

from __future__ import annotations

from torch import nn

from ov2vss.model.config import ModelConfig
from ov2vss.model.dense_head import DenseHead


def build_image_encoder(config: ModelConfig, channels: list[int]) -> nn.Module:
    """The encoder that ``config.image_encoder`` names; ``channels`` are those of the backbone's four levels."""
    match config.image_encoder:
        case "dense-head":
            return DenseHead(channels, config.dense_width, config.embed_dim)
