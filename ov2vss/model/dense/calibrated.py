"""Recipe ``calibrated``, after SFP: outliers repaired, then attention by the similarity of middle blocks.

``h_b`` are the tokens after block ``b`` of 12, counted from 1.

1. Outliers: of the patches that the class token attends to in block 11 (times 1.5, mean over heads) more than they
   attend to themselves, the ten strongest. In ``h_11`` and ``h_9`` each becomes the mean of its clean 3 x 3 neighbours.
2. ``S``, ``T``: cosines between patches of the repaired ``h_9``, and of ``h_4``; below 0.4 -> 0. ``A(.)``: rows divided
   by their sums. ``M``: softmax of 3 times what exceeds the mean of ``S``.
3. Through the last block's norm, value and output projection, without residual and MLP: ``y = A(S) h_11`` with a third
   each of query-query, key-key and ``M`` attention, plus 0.3 of the class token; and ``h_4 + ... + h_10`` with ``M``
   alone, plus 0.3 of its class token. Their sum is aggregated with ``A(T)``.

Towers of another depth take the blocks at the same shares of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import floor
from typing import ClassVar

import torch
from torch import Tensor, nn

from ov2vss.model.dense.exact import Cosines, Emphasis, Fill, Outliers, RowShares
from ov2vss.model.dense.tower import ClipTower, heads_of, joined
from ov2vss.model.pooling import Grid

log = logging.getLogger("ov2vss")
DEPTH = 12
"""Blocks of the tower that the recipe was made for."""
SHAPE, CONTENT, MIDDLE = 9, 4, range(4, 11)
"""Blocks of ``S``, of ``T``, and those that are added up."""
LEAST, SHARPNESS, CLASS_SHARE = 0.4, 3.0, 0.3
OUTLIERS, CLASS_FACTOR = 10, 1.5


def scaled(block: int, depth: int) -> int:
    """The block of a tower of ``depth`` blocks that stands where ``block`` does among 12; never the last one."""
    return min(max(floor(block * depth / DEPTH + 0.5), 1), max(depth - 1, 1))


class CalibratedDense(ClipTower):
    """Repaired outliers and similarity-driven attention in the last block."""

    recipe = "calibrated"
    constants: ClassVar[dict[str, float]] = {
        "least_cosine": LEAST,
        "sharpness": SHARPNESS,
        "class_share": CLASS_SHARE,
        "outliers": OUTLIERS,
        "class_factor": CLASS_FACTOR,
    }

    def __init__(self, visual: nn.Module, tokens: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(visual, tokens, mean, std)
        depth = len(visual.transformer.resblocks)
        self.shape, self.content = scaled(SHAPE, depth), scaled(CONTENT, depth)
        self.middle = [scaled(block, depth) for block in MIDDLE]
        if depth < 2:
            raise ValueError(f"the recipe calibrated needs a tower of at least 2 blocks, this one has {depth}")
        if depth != DEPTH:
            log.info(
                "calibrated: made for %d blocks, this tower has %d: blocks %s are added up, similarities are of blocks "
                "%d and %d",
                DEPTH,
                depth,
                ", ".join(map(str, self.middle)),
                self.shape,
                self.content,
            )
        self.outliers, self.fill = Outliers(OUTLIERS, CLASS_FACTOR), Fill()
        self.cosines, self.shares, self.emphasis = Cosines(LEAST), RowShares(), Emphasis(SHARPNESS)

    def last(self, x: Tensor, grid: Grid) -> Tensor:
        *blocks, before, last = self.visual.transformer.resblocks
        after = {}
        for number, block in enumerate(blocks, start=1):
            x = after[number] = block(x)
        x, attention = _with_attention(before, x)
        after[len(blocks) + 1] = x
        outliers = self.outliers(attention)
        similar = self.cosines(self.fill(after[self.shape][:, 1:], outliers, grid))
        content = self.shares(self.cosines(after[self.content][:, 1:]))
        focus = self.emphasis(similar)
        middle = torch.stack([after[block] for block in self.middle]).sum(0)
        repaired = self.shares(similar) @ self.fill(x[:, 1:], outliers, grid)
        query, key, value = heads_of(last, last.ln_1(repaired), "qkv")
        (added,) = heads_of(last, last.ln_1(middle[:, 1:]), "v")
        scale = query.shape[-1] ** -0.5
        alike = torch.softmax(query @ (query * scale).transpose(2, 3), dim=-1)
        alike = alike + torch.softmax(key @ (key * scale).transpose(2, 3), dim=-1)
        mixed = joined(alike @ (value / 3) + focus[:, None] @ (value / 3 + added))
        # One output projection for both sums: its bias counts twice.
        projected = last.ls_1(last.attn.out_proj(mixed) + last.attn.out_proj.bias)
        return content @ (projected + CLASS_SHARE * (x[:, :1] + middle[:, :1]))


def _with_attention(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens after a block, and its attention ``[B, heads, 1 + n, 1 + n]``."""
    query, key, value = heads_of(block, block.ln_1(x), "qkv")
    attention = torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(2, 3), dim=-1)
    x = x + block.ls_1(block.attn.out_proj(joined(attention @ value)))
    return x + block.ls_2(block.mlp(block.ln_2(x))), attention
