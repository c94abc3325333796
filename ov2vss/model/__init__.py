"""The network, one concept a file; :mod:`ov2vss.model.ov2vss` puts them together."""

from ov2vss.model.config import ModelConfig
from ov2vss.model.ov2vss import OV2VSS, FrameFeatures, Prediction, StepFeatures

__all__ = ["OV2VSS", "FrameFeatures", "ModelConfig", "Prediction", "StepFeatures"]
