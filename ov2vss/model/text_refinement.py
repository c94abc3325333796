"""Video-text encoding: class embeddings refined by what the frame shows (Eq. 11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.attention import Attention


class TextRefinement(nn.Module):
    """``F^T + alpha * (attend(F^T; F^V) [+ FFN])`` with pre-LayerNorm and a learned gate per channel.

    Every class is refined alone: no class sees another one. ``alpha`` starts small, so that training starts from the
    text encoder's own space.
    """

    def __init__(self, embed_dim: int, heads: int, ffn: bool) -> None:
        super().__init__()
        self.norm_memory = nn.LayerNorm(embed_dim)
        self.norm_text = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, heads)
        self.ffn = (
            nn.Sequential(
                nn.LayerNorm(embed_dim),
                nn.Linear(embed_dim, 4 * embed_dim),
                nn.GELU(),
                nn.Linear(4 * embed_dim, embed_dim),
            )
            if ffn
            else None
        )
        self.alpha = nn.Parameter(torch.full((embed_dim,), 1e-2))

    def memory(self, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, h*w, D]`` of the dense features ``[B, D, h, w]``."""
        return self.attention.memory(self.norm_memory(dense.flatten(2).transpose(1, 2)))

    def forward(self, text: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Class embeddings ``[B, N, D]`` or ``[N, D]`` -> refined, unit length, ``[B, N, D]``."""
        text = text.expand(keys.shape[0], -1, -1)
        x = text + self.attention(self.norm_text(text), keys, values)
        if self.ffn is not None:
            x = x + self.ffn(x)
        return F.normalize(text + self.alpha * (x - text), dim=-1)
