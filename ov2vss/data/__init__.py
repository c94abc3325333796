"""Labelled videos: generated ones, folders in the VSPW layout, and the clips that training cuts from them."""

from ov2vss.data.folder import FolderVideos
from ov2vss.data.shapes import ShapesVideos
from ov2vss.data.source import VideoSet

SHAPES = "shapes"


def open_videos(data: str, split: str, cache: bool = False) -> VideoSet:
    """``shapes`` for the generated clips, else a folder in the VSPW layout."""
    return ShapesVideos(split) if data == SHAPES else FolderVideos(data, split, cache)


__all__ = ["SHAPES", "FolderVideos", "ShapesVideos", "VideoSet", "open_videos"]
