"""One logit per class from the cost volume and the video features (Eq. 14)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.stcf import upsample


class Decoder(nn.Module):
    """conv3x3 over [X^, O^_t] + GroupNorm + ReLU + conv3x3 -> one logit per class at stride 8.

    A convolution over a concatenation is a sum of two: ``cost_conv`` sees X^ of one class, ``video_conv`` sees O^_t.
    Everything that does not depend on the class is the frame's *guidance*, computed once and added. With
    ``fusion="add"`` O^_t is projected to the width of X^ and added to it before one convolution (ablation).
    """

    def __init__(self, cost_width: int, width: int, decoder_width: int, groups: int, fusion: str) -> None:
        super().__init__()
        self.fusion = fusion
        self.cost_conv = nn.Conv2d(cost_width, decoder_width, 3, padding=1)
        self.video_conv = (
            nn.Conv2d(width, decoder_width, 3, padding=1, bias=False)
            if fusion == "concat"
            else nn.Conv2d(width, cost_width, 1)
        )
        self.norm = nn.GroupNorm(groups, decoder_width)
        self.logit = nn.Conv2d(decoder_width, 1, 3, padding=1)

    def guidance(self, o_hat: Tensor, shared_cost: Tensor) -> Tensor:
        """``o_hat [B, C, H/8, W/8]``, ``shared_cost [B, c, h, w]`` (position share of X^) -> ``[B, c', H/8, W/8]``."""
        shared = upsample(shared_cost, o_hat.shape[-2:])
        if self.fusion == "concat":
            return self.cost_conv(shared) + self.video_conv(o_hat)
        return self.cost_conv(shared + self.video_conv(o_hat))

    def forward(self, cost: Tensor, guidance: Tensor) -> Tensor:
        """``cost [B*N, c, h, w]`` of the classes, ``guidance [B*N or 1, c', H/8, W/8]`` -> ``[B*N, 1, H/8, W/8]``."""
        x = upsample(cost, guidance.shape[-2:])
        x = F.conv2d(x, self.cost_conv.weight, padding=1) + guidance
        return self.logit(F.relu(self.norm(x)))


class AuxiliaryHead(nn.Module):
    """Closed-set head on O_t for the auxiliary loss (Eq. 7); dropped at export."""

    def __init__(self, width: int, classes: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.GroupNorm(groups, width), nn.ReLU(), nn.Conv2d(width, classes, 1)
        )

    def forward(self, o_t: Tensor) -> Tensor:
        return self.body(o_t)
