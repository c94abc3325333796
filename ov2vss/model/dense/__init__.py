"""Dense vision-language features F^V from CLIP's frozen image tower: one module a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ov2vss.errors import OV2VSSError
from ov2vss.model.dense.calibrated import CalibratedDense
from ov2vss.model.dense.neighbour import NeighbourDense
from ov2vss.model.dense.siglip import SiglipDense, is_siglip
from ov2vss.model.dense.tower import ClipTower, check_tower
from ov2vss.model.dense.value import ValueDense

RECIPES: dict[str, type[ClipTower]] = {r.recipe: r for r in (ValueDense, NeighbourDense, CalibratedDense)}
DEFAULT_RECIPE = "neighbour"
"""Of bundles that were not trained. The paper's is ``value``."""

__all__ = ["DEFAULT_RECIPE", "RECIPES", "ClipTower", "build_dense", "check_recipe"]


def check_recipe(visual: nn.Module, recipe: str) -> type[ClipTower]:
    """The class that takes the features out of open_clip's image tower.

    Raises:
        OV2VSSError: there is no such recipe, or it does not fit the tower.
    """
    if recipe not in RECIPES:
        raise OV2VSSError(f"there is no dense recipe {recipe!r}", f"choose one of {', '.join(RECIPES)}")
    if not is_siglip(visual):
        check_tower(visual)
        return RECIPES[recipe]
    if recipe != SiglipDense.recipe:
        raise OV2VSSError(
            f"the recipe {recipe} needs a class token, which SigLIP has not",
            f"take the recipe {SiglipDense.recipe} (--dense {SiglipDense.recipe})",
        )
    return SiglipDense


def build_dense(visual: nn.Module, recipe: str, tokens: int, mean: Sequence[float], std: Sequence[float]) -> ClipTower:
    """The recipe by name over open_clip's image tower (see :class:`ClipTower` for the arguments)."""
    return check_recipe(visual, recipe)(visual, tokens, mean, std)
