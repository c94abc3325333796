"""What a frame shows should be what the frame before it shows, moved along the flow: a loss that needs no labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def moved(planes: Tensor, flow: Tensor) -> Tensor:
    """``planes [B, N, h, w]`` at the places that ``flow [B, h, w, 2]`` (x, y, in cells) points to, bilinear, held at
    the borders: :func:`ov2vss_runtime.stream.flow.sample` for tensors."""
    h, w = planes.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    at = flow + torch.stack((x, y), -1).to(flow)
    grid = 2 * at / torch.tensor([max(w - 1, 1), max(h - 1, 1)]).to(at) - 1
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True)


def consistency_loss(now: Tensor, before: Tensor, flow: Tensor, trust: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the present from the moved past, mean over the cells by their trust.

    The past is the teacher: no gradient reaches it, or blurring both would be the easiest answer.

    Args:
        now: logits ``[B, N, h, w]`` of the frames.
        before: of the frames before them.
        flow: ``[B, h, w, 2]`` from the frames to those before, in cells.
        trust: ``[B, h, w]``.
    """
    past = moved(torch.softmax(before.detach().float(), 1), flow)
    found = F.log_softmax(now.float(), 1)
    divergence = (torch.xlogy(past, past) - past * found).sum(1)
    return (divergence * trust).sum() / trust.sum().clamp(min=1e-6)
