"""F^V from CLIP: dense features of its frozen image tower."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ov2vss.errors import OV2VSSError
from ov2vss.model.pooling import Grid


@lru_cache(maxsize=64)
def resize_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Antialiased bicubic interpolation of one axis as a float64 matrix ``[size_out, size_in]``.

    It is how CLIP's own preprocessing resizes images, and how open_clip resizes position embeddings.
    """
    if size_in == size_out:
        return np.eye(size_in)
    # Rows as width: torch mistakes a tensor [1, n, n, 1] for channels-last and interpolates the wrong axis.
    basis = torch.eye(size_in, dtype=torch.float64).view(size_in, 1, 1, size_in)
    resized = F.interpolate(basis, (1, size_out), mode="bicubic", antialias=True, align_corners=False)
    return resized[:, 0, 0].T.contiguous().numpy()


def resize(x: Tensor, size: Grid) -> Tensor:
    """Antialiased bicubic resize of ``[..., h, w]`` to ``size``: two matrix products, so that it exports as such."""
    rows, columns = (torch.from_numpy(resize_matrix(a, b)).to(x) for a, b in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


class ClipDense(nn.Module):
    """Value-only features of the last block: every patch keeps its own content and its place.

    In the last block, attention is replaced by ``out_proj(v_proj(x))`` with residual and MLP kept; then ``ln_post`` and
    ``proj``, class token dropped (it takes part up to the block before). The input is resized to a grid of about
    ``tokens`` patches with the frame's aspect (18 x 32 for 16:9), the position embedding with it.

    Args:
        visual: open_clip's image tower.
        tokens: wanted number of patches.
        mean, std: CLIP's normalisation of RGB in [0, 1].
    """

    frozen = True

    def __init__(self, visual: nn.Module, tokens: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        plain = isinstance(visual, VisionTransformer) and visual.attn_pool is None and not visual.final_ln_after_pool
        if not plain or not all(type(b) is ResidualAttentionBlock for b in visual.transformer.resblocks):
            raise OV2VSSError(
                f"dense features need a plain CLIP vision transformer, not a {type(visual).__name__}",
                "choose a ViT of open_clip without attention pooling (model.clip_model=ViT-B-16)",
            )
        self.visual = visual
        self.tokens = tokens
        self.patch: Grid = visual.patch_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> ClipDense:
        """Frozen: stays in evaluation mode."""
        return super().train(False)

    def grid(self, height: int, width: int) -> Grid:
        """Patches ``(rows, columns)`` for a frame; 18 x 32 for 480 x 864 and 24 x 24 for a square, at 576 tokens."""
        aspect = (height / self.patch[0]) / (width / self.patch[1])
        return max(1, round(sqrt(self.tokens * aspect))), max(1, round(sqrt(self.tokens / aspect)))

    def positions(self, grid: Grid) -> Tensor:
        """Position embedding of the patches for ``grid``: ``[rows * columns, width]``."""
        stored = self.visual.positional_embedding[1:].T.unflatten(1, self.visual.grid_size)
        return resize(stored, grid).flatten(1).T

    def forward(self, frame: Tensor, levels: list[Tensor]) -> Tensor:
        """RGB in [0, 1] ``[B, 3, H, W]`` -> unit features ``[B, D, rows, columns]``; ``levels`` is not used."""
        v = self.visual
        grid = self.grid(*frame.shape[-2:])
        image = resize(frame, (grid[0] * self.patch[0], grid[1] * self.patch[1]))
        x = v.conv1((image - self.mean) / self.std).flatten(2).transpose(1, 2) + self.positions(grid)
        token = (v.class_embedding + v.positional_embedding[0]).expand(x.shape[0], 1, -1)
        x = v.ln_pre(torch.cat([token.to(x.dtype), x], dim=1))
        *blocks, last = v.transformer.resblocks
        for block in blocks:
            x = block(x)
        x = x[:, 1:]
        width = x.shape[-1]
        value = F.linear(last.ln_1(x), last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :])
        x = x + last.ls_1(last.attn.out_proj(value))
        x = x + last.ls_2(last.mlp(last.ln_2(x)))
        x = v.ln_post(x) @ v.proj
        return F.normalize(x.transpose(1, 2).unflatten(2, grid), dim=1)
