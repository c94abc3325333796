"""Labelled videos: generated ones, the VSPW layout, Cityscapes; and the clips that training cuts from them."""

from pathlib import Path

from ov2vss.data.cityscapes import CityscapesVideos
from ov2vss.data.folder import FolderVideos
from ov2vss.data.shapes import ShapesVideos
from ov2vss.data.source import CorruptFile, VideoSet
from ov2vss.errors import OV2VSSError

SHAPES = "shapes"


def open_videos(data: str, split: str, cache: bool = False) -> VideoSet:
    """``shapes`` for the generated clips, a folder with ``gtFine`` for Cityscapes, else one in the VSPW layout."""
    if data == SHAPES:
        return ShapesVideos(split)
    if (Path(data) / "gtFine").is_dir():
        return CityscapesVideos(data, split, cache)
    return FolderVideos(data, split, cache)


def labelled_split(data: str) -> str | None:
    """The split that a finished training is scored on: ``test`` where it has masks, else ``val``, else None."""
    splits = ("val",) if (Path(data) / "gtFine").is_dir() else ("test", "val")
    for split in splits:
        try:
            videos = open_videos(data, split)
        except OV2VSSError:
            continue
        if any(videos.labelled(v) for v in range(len(videos.videos))):
            return split
    return None


__all__ = [
    "SHAPES",
    "CityscapesVideos",
    "CorruptFile",
    "FolderVideos",
    "ShapesVideos",
    "VideoSet",
    "labelled_split",
    "open_videos",
]
