"""Which module gives the dense vision-language features F^V.

An image encoder is a module ``(frame, levels) -> F^V``: ``frame`` RGB in [0, 1] ``[B, 3, H, W]``, ``levels`` the raw
backbone maps at strides 4, 8, 16 and 32, and the result ``[B, D, hc, wc]`` of unit length per pixel, on a grid of the
encoder's own choice. The rest of the model takes the grid from the result. To add one, write its module in a file of
its own, name it in ``ModelConfig.image_encoder`` and build it here. One with ``frozen = True`` is no part of
checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ov2vss.clip_source import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss.model.config import ModelConfig
from ov2vss.model.dense_head import DenseHead

if TYPE_CHECKING:
    from ov2vss.model.dense import ClipTower


def build_image_encoder(config: ModelConfig, channels: list[int]) -> nn.Module:
    """The encoder that ``config.image_encoder`` names; ``channels`` are those of the backbone's four levels.

    CLIP comes with random weights; :func:`load_image_encoder` fills them in.
    """
    match config.image_encoder:
        case "dense-head":
            return DenseHead(channels, config.dense_width, config.embed_dim)
        case "clip":
            from ov2vss.clip import build_clip  # open_clip takes seconds to import

            return _dense(config, build_clip(config.clip_model, config.clip_pretrained))


def load_image_encoder(encoder: nn.Module, config: ModelConfig, source: ClipSource) -> None:
    """Fill a frozen encoder with its weights, in place; nothing to do for a trained one."""
    if config.image_encoder == "clip":
        from ov2vss.clip import load_clip

        loaded = _dense(config, load_clip(config.clip_model, config.clip_pretrained, source))
        encoder.load_state_dict(loaded.state_dict(), strict=True)


def _dense(config: ModelConfig, clip: nn.Module) -> ClipTower:
    from ov2vss.clip import clip_settings
    from ov2vss.model.dense import build_dense

    settings = clip_settings(config.clip_model, config.clip_pretrained)
    encoder = build_dense(clip.visual, config.dense, config.clip_tokens, settings.mean, settings.std)
    if encoder.width != config.embed_dim:
        raise OV2VSSError(
            f"model.embed_dim={config.embed_dim}, but {config.clip_model} gives {encoder.width}",
            f"set model.embed_dim={encoder.width}",
        )
    return encoder
