"""Dense features of SigLIP, whose tower has no class token: the value path of its pooling head.

The head attends with one learned query to all places, projects what it gathered, and adds an MLP of it. Here every
place goes through it alone, as if the head looked at nothing else: ``v + mlp(norm(v))`` with ``v = proj(value(x))``.
The tower is timm's, inside open_clip's ``TimmModel``.
"""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ov2vss.model.dense.resize import resize
from ov2vss.model.dense.tower import ClipTower, through
from ov2vss.model.pooling import Grid


def is_siglip(visual: nn.Module) -> bool:
    """Whether a tower is timm's plain vision transformer, pooled by attention with one query, with nothing after it."""
    trunk = getattr(visual, "trunk", None)
    if not isinstance(visual, TimmModel) or not isinstance(trunk, VisionTransformer) or len(visual.head):
        return False
    pool = trunk.attn_pool
    if not isinstance(pool, AttentionPoolLatent) or pool.mlp is None or pool.latent_len != 1:
        return False
    plain = pool.pos_embed is None and trunk.pos_embed is not None and trunk.num_prefix_tokens == 0
    after = (trunk.norm_pre, trunk.fc_norm, trunk.head)
    return plain and all(isinstance(layer, nn.Identity) for layer in after)


class SiglipDense(ClipTower):
    """Recipe ``value`` on a tower for which :func:`is_siglip` holds."""

    recipe = "value"

    @staticmethod
    def check(visual: nn.Module) -> None:
        """Whoever makes one has looked (:func:`ov2vss.model.dense.build_dense`)."""
        assert is_siglip(visual)

    @property
    def patch(self) -> Grid:
        rows, columns = self.visual.trunk.patch_embed.patch_size
        return rows, columns

    @property
    def width(self) -> int:
        found: int = self.visual.trunk.attn_pool.proj.out_features
        return found

    def _stored_positions(self) -> Tensor:
        trunk = self.visual.trunk
        return trunk.pos_embed[0].T.unflatten(1, trunk.patch_embed.grid_size)

    def embed(self, frame: Tensor) -> tuple[Tensor, Grid]:
        """RGB in [0, 1] ``[B, 3, H, W]`` -> patches ``[B, rows * columns, width]`` before the first block."""
        grid = self.grid(*frame.shape[-2:])
        image = resize(frame, (grid[0] * self.patch[0], grid[1] * self.patch[1]))
        patches = self.visual.trunk.patch_embed.proj((image - self.mean) / self.std)
        return patches.flatten(2).transpose(1, 2) + self.positions(grid), grid

    def last(self, x: Tensor, grid: Grid) -> Tensor:
        trunk, pool = self.visual.trunk, self.visual.trunk.attn_pool
        x = trunk.norm(through(trunk.blocks, x))
        bias = None if pool.kv.bias is None else pool.kv.bias[x.shape[-1] :]
        x = pool.proj(F.linear(x, pool.kv.weight[x.shape[-1] :], bias))
        return x + pool.mlp(pool.norm(x))

    def projected(self, x: Tensor) -> Tensor:
        return x
