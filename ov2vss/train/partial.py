"""The loss of pixels that are known in part: right words, wrong words, and words of which nothing is known."""

from __future__ import annotations

import torch
from torch import Tensor

FAR = -1e4


def partial_cross_entropy(logits: Tensor, rows: Tensor, weight: Tensor, tables: Tensor) -> tuple[Tensor, Tensor]:
    """``-log(sum over right words / sum over right and wrong words)`` of every pixel, weighted and summed.

    With one right word and all others wrong this is the usual cross-entropy. Words of which a pixel says nothing stay
    out of the softmax; pixels whose right words are all missing from the vocabulary, or whose wrong ones are, have no
    loss.

    Args:
        logits: ``[B, K, h, w]``.
        rows: int ``[B, h, w]``, the row of ``tables`` of each pixel; negative for none.
        weight: ``[B, h, w]``.
        tables: int8 ``[B, R, K]``, 1 right, -1 wrong, 0 unknown.

    Returns:
        The weighted sum, and the sum of the weights that took part.
    """
    flat = rows.flatten(1).clamp(min=0).long()
    says = torch.gather(tables, 1, flat[..., None].expand(-1, -1, tables.shape[-1]))  # [B, h*w, K]
    scores = logits.float().flatten(2).transpose(1, 2)
    right, wrong = says == 1, says == -1
    taking = (right.any(-1) & wrong.any(-1) & (rows.flatten(1) >= 0)).float() * weight.flatten(1)
    some = torch.logsumexp(scores.masked_fill(~right, FAR), -1)
    every = torch.logsumexp(scores.masked_fill(says == 0, FAR), -1)
    return ((every - some) * taking).sum(), taking.sum()
