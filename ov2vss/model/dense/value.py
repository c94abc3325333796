"""Recipe ``value``, the paper's: the last block's attention is left out, every patch keeps its own content."""

from __future__ import annotations

from torch import Tensor

from ov2vss.model.dense.tower import ClipTower, heads_of, joined, through
from ov2vss.model.pooling import Grid


class ValueDense(ClipTower):
    """In the last block, attention is replaced by ``out_proj(v_proj(x))``, with residual and MLP kept."""

    recipe = "value"

    def last(self, x: Tensor, grid: Grid) -> Tensor:
        *blocks, last = self.visual.transformer.resblocks
        x = through(blocks, x)[:, 1:]
        (value,) = heads_of(last, last.ln_1(x), "v")
        x = x + last.ls_1(last.attn.out_proj(joined(value)))
        return x + last.ls_2(last.mlp(last.ln_2(x)))
