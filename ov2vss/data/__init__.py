"""Labelled videos: generated ones, the VSPW layout, Cityscapes; and the clips that training cuts from them."""

from pathlib import Path

from ov2vss.data.cityscapes import CityscapesVideos
from ov2vss.data.folder import FolderVideos
from ov2vss.data.shapes import ShapesVideos
from ov2vss.data.source import CorruptFile, VideoSet
from ov2vss.data.stills import StillFrames
from ov2vss.errors import OV2VSSError

SHAPES = "shapes"


def open_videos(data: str, split: str, cache: bool = False, stills: bool = False) -> VideoSet:
    """``shapes`` for the generated clips, a folder with ``gtFine`` for Cityscapes, else one in the VSPW layout.

    Args:
        data, split: what to open.
        cache: keep decoded images in memory.
        stills: take every frame as a video of its own; without it only those of the folders in ``stills.txt``.
    """
    videos: VideoSet
    listed: list[str] = []
    if data == SHAPES:
        videos = ShapesVideos(split)
    elif (Path(data) / "gtFine").is_dir():
        videos = CityscapesVideos(data, split, cache)
    else:
        videos = folder = FolderVideos(data, split, cache)
        listed = folder.stills
    if stills:
        return StillFrames(videos)
    return StillFrames(videos, listed) if listed else videos


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
    "StillFrames",
    "VideoSet",
    "labelled_split",
    "open_videos",
]
