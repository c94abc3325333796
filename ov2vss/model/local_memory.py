"""What was here a moment ago, place by place: a recurrent memory that STCF's pooled tokens cannot be.

A GRU of convolutions at strides 8 and 16 on half of the channels. It hangs on the network by a gate that is zero at
first, so that a trained model starts as it was. Like STCF's it is a chain of fixed length: a frame has the memories

    h_0 = cell(x, 0)        h_k = cell(x, h_{k-1} of the frame ``gap`` earlier)

and as the target it reads ``cell(x, h_{last} of the frame gap earlier)``. So a frame depends on the last ``links``
references and nothing before, and a stream equals clips exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ov2vss.model.stcf import upsample

LINKS = 2
"""Memories of a frame: references that the target's reading reaches back to."""
LEVELS = 2
"""Strides 8 and 16: the first of the target's queries."""


class ConvGRU(nn.Module):
    """A gated recurrent unit of 3 x 3 convolutions, ``[B, c, h, w]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.outside = nn.Conv2d(width, 3 * width, 3, padding=1)
        self.inside = nn.Conv2d(width, 3 * width, 3, padding=1, bias=False)

    def forward(self, given: Tensor, past: Tensor | None) -> Tensor:
        """Next memory from ``outside(x)`` ``[B, 3c, h, w]`` and the past one; None for zeros."""
        update, reset, new = given.chunk(3, 1)
        if past is None:
            return torch.sigmoid(update) * torch.tanh(new)
        past_update, past_reset, past_new = self.inside(past).chunk(3, 1)
        candidate = torch.tanh(new + torch.sigmoid(reset + past_reset) * past_new)
        return past + torch.sigmoid(update + past_update) * (candidate - past)


class LocalMemory(nn.Module):
    """The memory of both strides.

    A state is a list, one tensor a stride: ``[B, LINKS, C/2, H/8, W/8]`` and ``[B, LINKS, C/2, H/16, W/16]``.

    Args:
        width: C, of the queries.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.half = width // 2
        self.scale = width**-0.5
        self.take = nn.ModuleList(nn.Conv2d(width, self.half, 1) for _ in range(LEVELS))
        self.cells = nn.ModuleList(ConvGRU(self.half) for _ in range(LEVELS))
        self.give = nn.ModuleList(nn.Conv2d(self.half, width, 1) for _ in range(LEVELS))
        self.gate = nn.Parameter(torch.zeros(width))

    def look(self, queries: list[Tensor]) -> list[Tensor]:
        """What the cells take of a frame; its queries at strides 8, 16, 32, scaled as STCF has them."""
        pairs = zip(self.take, self.cells, queries[:LEVELS], strict=True)
        return [cell.outside(take(query / self.scale)) for take, cell, query in pairs]

    def advance(self, seen: list[Tensor], state: list[Tensor]) -> list[Tensor]:
        """State of a frame from :meth:`look` and the state of the frame ``gap`` earlier."""
        found = []
        for cell, given, past in zip(self.cells, seen, state, strict=True):
            links = [cell(given, None)] + [cell(given, past[:, k]) for k in range(LINKS - 1)]
            found.append(torch.stack(links, 1))
        return found

    def chain(self, references: list[list[Tensor]]) -> list[Tensor]:
        """Last memories ``[B, C/2, h, w]`` of the last of some references (:meth:`look` of each, oldest first)."""
        past: list[Tensor | None] = [None] * LEVELS
        for seen in references[-LINKS:]:
            past = [cell(given, p) for cell, given, p in zip(self.cells, seen, past, strict=True)]
        return [p for p in past if p is not None]

    def read(self, seen: list[Tensor], past: list[Tensor]) -> Tensor:
        """What is added to O_t, ``[B, C, H/8, W/8]``: the target's :meth:`look`, and last memories of the frame before
        it."""
        memories = [cell(given, p) for cell, given, p in zip(self.cells, seen, past, strict=True)]
        size = memories[0].shape[-2:]
        fine, coarse = (give(memory) for give, memory in zip(self.give, memories, strict=True))
        return self.gate[:, None, None] * (fine + upsample(coarse, size))

    def shapes(self, queries: list[Tensor]) -> list[tuple[int, ...]]:
        """Shapes of a state without its batch axis."""
        return [(LINKS, self.half, query.shape[-2], query.shape[-1]) for query in queries[:LEVELS]]
