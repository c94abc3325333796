"""Training package of the OV2VSS toolkit: the model, its data and its training (needs PyTorch)."""

from importlib.metadata import version

__version__ = version("ov2vss")
