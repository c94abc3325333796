"""Runtime of the OV2VSS toolkit: a bundle and a video in, labelled frames out. Never imports torch."""

from importlib.metadata import version

__version__ = version("ov2vss")
