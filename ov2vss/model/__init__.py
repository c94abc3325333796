"""The network, one concept a file; :mod:`ov2vss.model.ov2vss` puts them together.

The configuration is read without torch; the network itself is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ov2vss.model.config import ModelConfig

if TYPE_CHECKING:
    from ov2vss.model.ov2vss import OV2VSS, FrameFeatures, Prediction, StepFeatures

__all__ = ["OV2VSS", "FrameFeatures", "ModelConfig", "Prediction", "StepFeatures"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ov2vss.model import ov2vss

    return getattr(ov2vss, name)
