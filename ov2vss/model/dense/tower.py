"""What the recipes for dense CLIP features share: the image tower up to its last block, and its projection."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import ClassVar

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ov2vss.errors import OV2VSSError
from ov2vss.model.dense.exact import Unit
from ov2vss.model.dense.resize import resize
from ov2vss.model.pooling import Grid

CLIP_TOKENS = 49408


class ClipTower(nn.Module):
    """Base of the recipes. A recipe implements :meth:`last`: what becomes of the patches in the last block.

    The frame is resized to a grid of about ``tokens`` patches with its own aspect (18 x 32 for 16:9), the position
    embedding with it. The class token takes part up to the block before the last.

    Args:
        visual: open_clip's image tower.
        tokens: wanted number of patches.
        mean, std: CLIP's normalisation of RGB in [0, 1].

    Raises:
        OV2VSSError: the tower is no plain vision transformer; names towers that are.
    """

    frozen = True
    recipe: ClassVar[str]
    constants: ClassVar[dict[str, float]] = {}
    """What the recipe is tuned with, for a bundle's manifest."""

    def __init__(self, visual: nn.Module, tokens: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.check(visual)
        self.visual = visual
        self.unit = Unit()
        self.tokens = tokens
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.prepared: dict[Grid, Tensor] = {}
        """Position embeddings of grids that were made beforehand."""
        self.eval().requires_grad_(False)

    @staticmethod
    def check(visual: nn.Module) -> None:
        """Refuse a tower that the recipe cannot take apart."""
        check_tower(visual)

    @property
    def patch(self) -> Grid:
        """Pixels of a patch (rows, columns)."""
        rows, columns = self.visual.patch_size
        return rows, columns

    @property
    def width(self) -> int:
        """D of the features."""
        found: int = self.visual.output_dim
        return found

    def train(self, mode: bool = True) -> ClipTower:
        """Frozen: stays in evaluation mode."""
        return super().train(False)

    def grid(self, height: int, width: int) -> Grid:
        """Patches ``(rows, columns)`` for a frame; 18 x 32 for 480 x 864 and 24 x 24 for a square, at 576 tokens."""
        aspect = (height / self.patch[0]) / (width / self.patch[1])
        return max(1, round(sqrt(self.tokens * aspect))), max(1, round(sqrt(self.tokens / aspect)))

    def positions(self, grid: Grid) -> Tensor:
        """Position embedding of the patches for ``grid``: ``[rows * columns, width]``."""
        if grid in self.prepared:
            return self.prepared[grid]
        return resize(self._stored_positions(), grid).flatten(1).T

    def _stored_positions(self) -> Tensor:
        """Position embedding of the patches as it was trained: ``[width, rows, columns]``."""
        return self.visual.positional_embedding[1:].T.unflatten(1, self.visual.grid_size)

    @torch.no_grad()
    def prepare(self, height: int, width: int) -> None:
        """Make the position embedding of frames of this size once, so that a graph holds it and not its making."""
        grid = self.grid(height, width)
        self.prepared[grid] = self.positions(grid).clone()

    def embed(self, frame: Tensor) -> tuple[Tensor, Grid]:
        """RGB in [0, 1] ``[B, 3, H, W]`` -> tokens ``[B, 1 + rows * columns, width]`` before the first block."""
        v = self.visual
        grid = self.grid(*frame.shape[-2:])
        image = resize(frame, (grid[0] * self.patch[0], grid[1] * self.patch[1]))
        x = v.conv1((image - self.mean) / self.std).flatten(2).transpose(1, 2) + self.positions(grid)
        token = (v.class_embedding + v.positional_embedding[0]).expand(x.shape[0], 1, -1)
        return v.ln_pre(torch.cat([token.to(x.dtype), x], dim=1)), grid

    def last(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens before the first block ``[B, 1 + n, width]`` -> patches after the last one ``[B, n, width]``."""
        raise NotImplementedError

    def forward(self, frame: Tensor, levels: list[Tensor]) -> Tensor:
        """RGB in [0, 1] ``[B, 3, H, W]`` -> unit features ``[B, D, rows, columns]``; ``levels`` is not used."""
        x, grid = self.embed(frame)
        return self.unit(self.projected(self.last(x, grid))).transpose(1, 2).unflatten(2, grid)

    def projected(self, x: Tensor) -> Tensor:
        """Patches after the last block ``[B, n, width]`` -> where words are, ``[B, n, D]``."""
        return self.visual.ln_post(x) @ self.visual.proj


def through(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Tokens through blocks one after the other."""
    for block in blocks:
        x = block(x)
    return x


def heads_of(block: nn.Module, y: Tensor, parts: str) -> list[Tensor]:
    """Query, key and value (those of ``parts``, letters of ``qkv``) of normalised tokens ``[B, n, width]``, each
    ``[B, heads, n, width / heads]``."""
    width, heads, found = y.shape[-1], block.attn.num_heads, []
    for part in parts:
        rows = slice("qkv".index(part) * width, ("qkv".index(part) + 1) * width)
        projected = F.linear(y, block.attn.in_proj_weight[rows], block.attn.in_proj_bias[rows])
        found.append(projected.unflatten(-1, (heads, width // heads)).transpose(1, 2))
    return found


def joined(x: Tensor) -> Tensor:
    """``[B, heads, n, size]`` -> ``[B, n, heads * size]``."""
    return x.transpose(1, 2).flatten(2)


def check_tower(visual: nn.Module) -> None:
    """Refuse a tower without the parts that the recipes take apart."""
    plain = isinstance(visual, VisionTransformer) and visual.attn_pool is None and not visual.final_ln_after_pool
    plain = plain and visual.proj is not None
    if not plain or not all(type(b) is ResidualAttentionBlock for b in visual.transformer.resblocks):
        pooled = isinstance(visual, VisionTransformer) and visual.attn_pool is not None
        kind = f"{type(visual).__name__} with attention pooling" if pooled else type(visual).__name__
        raise OV2VSSError(
            f"dense features need a plain CLIP vision transformer, not a {kind}",
            f"choose one of open_clip's {', '.join(fitting_models())}; or a SigLIP with the recipe value",
        )


def fitting_models() -> list[str]:
    """Names of open_clip's architectures whose towers fit, as their configurations say: a plain vision transformer, and
    CLIP's own tokenizer."""
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name) or {}
        vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
        other = ("timm_model_name", "attentional_pool", "final_ln_after_pool", "block_type")
        plain = isinstance(vision.get("layers"), int) and not any(vision.get(key) for key in other)
        own_words = not text.get("hf_model_name") and text.get("vocab_size", CLIP_TOKENS) == CLIP_TOKENS
        if plain and own_words and "multimodal_cfg" not in config:
            found.append(name)
    return found
