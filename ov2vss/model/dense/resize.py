"""Antialiased bicubic resizing as matrix products, so that it exports as such."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Antialiased bicubic resize of ``[..., h, w]`` to ``size``: a matrix product for each axis that changes."""
    if x.shape[-2] != size[0]:
        x = torch.from_numpy(resize_matrix(x.shape[-2], size[0])).to(x) @ x
    if x.shape[-1] != size[1]:
        x = x @ torch.from_numpy(resize_matrix(x.shape[-1], size[1])).to(x).T
    return x
