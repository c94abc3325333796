"""Dense vision-language features F^V from CLIP's frozen image tower: one module a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ov2vss.errors import OV2VSSError
from ov2vss.model.dense.calibrated import CalibratedDense
from ov2vss.model.dense.neighbour import NeighbourDense
from ov2vss.model.dense.tower import ClipTower
from ov2vss.model.dense.value import ValueDense

RECIPES: dict[str, type[ClipTower]] = {r.recipe: r for r in (ValueDense, NeighbourDense, CalibratedDense)}
DEFAULT_RECIPE = "neighbour"
"""Of bundles that were not trained. The paper's is ``value``."""

__all__ = ["DEFAULT_RECIPE", "RECIPES", "ClipTower", "build_dense"]


def build_dense(visual: nn.Module, recipe: str, tokens: int, mean: Sequence[float], std: Sequence[float]) -> ClipTower:
    """The recipe by name over open_clip's image tower (see :class:`ClipTower` for the arguments)."""
    if recipe not in RECIPES:
        raise OV2VSSError(f"there is no dense recipe {recipe!r}", f"choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe](visual, tokens, mean, std)
