"""The cost volume between class embeddings and dense features, and its refinement (Eqs. 12 and 13).

Classes are a batch axis: nothing here or in the decoder mixes two of them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def cosine_volume(text: Tensor, dense: Tensor) -> Tensor:
    """X (Eq. 12): unit vectors ``[B, N, D]`` and ``[B, D, h, w]`` -> ``[B, N, h, w]`` in [-1, 1]."""
    return (text @ dense.flatten(2)).unflatten(-1, dense.shape[-2:])


class PositionFeatures(nn.Module):
    """Shallow backbone features averaged down to the grid of X: ``[B, C, H/4, W/4] -> [B, P, h, w]``."""

    def __init__(self, width: int, position_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, position_width, 3, padding=1)

    def forward(self, shallow: Tensor) -> Tensor:
        """``shallow``: U^1, already averaged to the grid of X with :func:`resize_average`."""
        return F.relu(self.conv(shallow))


class CostRefinement(nn.Module):
    """X~ = ReLU(conv7x7(X)) per class, and X^ = Linear(concat(X~, position)) (Eq. 13).

    The linear layer after the concatenation is a sum: ``per_class`` holds the part that depends on the class and
    ``shared`` the part that does not, so that the latter is computed once a frame.
    """

    def __init__(self, cost_width: int, position_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, cost_width, 7, padding=3)
        self.per_class = nn.Conv2d(cost_width, cost_width, 1, bias=False)
        self.shared = nn.Conv2d(position_width, cost_width, 1)
        # Cosines between a caption space and image features spread over a few tenths only.
        nn.init.normal_(self.conv.weight, std=5 / 7)

    def forward(self, volume: Tensor) -> Tensor:
        """``[B*N, 1, h, w]`` -> class-dependent share of X^, ``[B*N, c, h, w]``."""
        return self.per_class(F.relu(self.conv(volume)))
