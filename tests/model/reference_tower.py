"""The small CLIP tower on which the authors' code made the tensors in ``references/``; see the README there."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

SIZES = ((224, 224), (336, 592), (288, 512))
COUNTS = (0, 1, 10)
WIDTH, DEPTH, PATCH, EMBED = 128, 12, 16, 32
STEP = 11
"""Every so many values of a result are stored."""


def numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tower_weights() -> dict[str, Tensor]:
    """Weights under OpenAI's names without ``visual.``; norms and biases away from neutral."""
    made: dict[str, Tensor] = {}

    def add(name: str, *shape: int, scale: float, around: float = 0.0) -> None:
        made[name] = around + scale * numbers(shape, 100 + len(made))

    add("class_embedding", WIDTH, scale=0.5)
    add("positional_embedding", 1 + (224 // PATCH) ** 2, WIDTH, scale=0.3)
    add("proj", WIDTH, EMBED, scale=WIDTH**-0.5)
    add("conv1.weight", WIDTH, 3, PATCH, PATCH, scale=0.05)
    for norm in ("ln_pre", "ln_post"):
        add(f"{norm}.weight", WIDTH, scale=0.2, around=1.0)
        add(f"{norm}.bias", WIDTH, scale=0.2)
    for block in range(DEPTH):
        p = f"transformer.resblocks.{block}."
        add(p + "attn.in_proj_weight", 3 * WIDTH, WIDTH, scale=WIDTH**-0.5)
        add(p + "attn.in_proj_bias", 3 * WIDTH, scale=0.1)
        add(p + "attn.out_proj.weight", WIDTH, WIDTH, scale=0.5 * WIDTH**-0.5)
        add(p + "attn.out_proj.bias", WIDTH, scale=0.1)
        for norm in ("ln_1", "ln_2"):
            add(p + f"{norm}.weight", WIDTH, scale=0.2, around=1.0)
            add(p + f"{norm}.bias", WIDTH, scale=0.1)
        add(p + "mlp.c_fc.weight", 4 * WIDTH, WIDTH, scale=WIDTH**-0.5)
        add(p + "mlp.c_fc.bias", 4 * WIDTH, scale=0.1)
        add(p + "mlp.c_proj.weight", WIDTH, 4 * WIDTH, scale=0.5 * (4 * WIDTH) ** -0.5)
        add(p + "mlp.c_proj.bias", WIDTH, scale=0.1)
    return made


def with_share(weights: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Queries of block 11 that equal its keys (each patch attends to itself: no outliers) but for ``share``."""
    name = f"transformer.resblocks.{DEPTH - 2}.attn.in_proj_"
    changed = dict(weights)
    for kind in ("weight", "bias"):
        tensor = weights[name + kind].clone()
        tensor[:WIDTH] = (1 - share) * tensor[WIDTH : 2 * WIDTH] + share * tensor[:WIDTH]
        changed[name + kind] = tensor
    return changed


def image(size: tuple[int, int]) -> Tensor:
    """Normalised ``[1, 3, H, W]``: soft shapes and a little noise."""
    coarse = F.interpolate(numbers((1, 3, 9, 12), sum(size)), size, mode="bilinear", align_corners=False)
    return coarse + 0.1 * numbers((1, 3, *size), sum(size) + 1)


def open_clip_tower(weights: dict[str, Tensor]) -> VisionTransformer:
    from open_clip.transformer import QuickGELU

    tower = VisionTransformer(
        image_size=224,
        patch_size=PATCH,
        width=WIDTH,
        layers=DEPTH,
        heads=WIDTH // 64,
        mlp_ratio=4.0,
        output_dim=EMBED,
        act_layer=QuickGELU,
    )
    tower.load_state_dict(weights, strict=True)
    return tower.eval()


def authors_positions(stored: Tensor, grid: tuple[int, int]) -> Tensor:
    """Their rule: bicubic by a scale factor of (n + 0.1) / 14, without antialiasing; ``[rows * columns, width]``."""
    side = int(sqrt(len(stored) - 1))
    if grid == (side, side):
        return stored[1:]
    maps = stored[1:].T.unflatten(1, (side, side))[None]
    factors = tuple((n + 0.1) / side for n in grid)
    resized = F.interpolate(
        maps, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
    )
    return resized[0].flatten(1).T
