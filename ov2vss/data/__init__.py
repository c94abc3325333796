"""Labelled videos: generated ones, the VSPW layout, Cityscapes, sets of pictures; and the clips that training cuts from
them."""

from pathlib import Path

from ov2vss.data.cityscapes import CityscapesVideos
from ov2vss.data.folder import FolderVideos
from ov2vss.data.shapes import ShapesVideos
from ov2vss.data.source import CorruptFile, VideoSet
from ov2vss.data.still_sets import SETS, StillImages, named_set
from ov2vss.data.stills import StillFrames
from ov2vss.errors import OV2VSSError

SHAPES = "shapes"


def open_videos(data: str, split: str, cache: bool = False, stills: bool = False, hold_out: bool = True) -> VideoSet:
    """``shapes`` for the generated clips, a folder with ``gtFine`` for Cityscapes, ``voc21:DIR`` and the like for sets
    of pictures (:mod:`ov2vss.data.still_sets`), else a folder in the VSPW layout.

    Args:
        data, split: what to open.
        cache: keep decoded images in memory.
        stills: take every frame as a video of its own; without it only those of the folders in ``stills.txt``.
        hold_out: of the generated clips, show the unseen compositions in ``test`` alone.
    """
    videos: VideoSet
    videos = ShapesVideos(split, hold_out) if data == SHAPES else open_files(data, split, cache)
    listed = videos.stills if isinstance(videos, FolderVideos) else []
    if stills:
        return StillFrames(videos)
    return StillFrames(videos, listed) if listed else videos


def open_files(data: str, split: str, cache: bool = False) -> CityscapesVideos | FolderVideos | StillImages:
    """Videos of image files as they lie in their folders, stills among them too."""
    if (pictures := named_set(data)) is not None:
        return StillImages(*pictures, split, cache)
    return (CityscapesVideos if (Path(data) / "gtFine").is_dir() else FolderVideos)(data, split, cache)


def labelled_splits(data: str) -> list[str]:
    """Of ``test`` and ``val`` those that have masks, in this order (VSPW's public test split has none)."""
    found = []
    for split in ("val",) if named_set(data) or (Path(data) / "gtFine").is_dir() else ("test", "val"):
        try:
            videos = open_videos(data, split)
        except OV2VSSError:
            continue
        if any(videos.labelled(v) for v in range(len(videos.videos))):
            found.append(split)
    return found


def labelled_split(data: str) -> str | None:
    """The split that a finished training is scored on: the first of :func:`labelled_splits`, or None."""
    return next(iter(labelled_splits(data)), None)


__all__ = [
    "SETS",
    "SHAPES",
    "CityscapesVideos",
    "CorruptFile",
    "FolderVideos",
    "ShapesVideos",
    "StillFrames",
    "StillImages",
    "VideoSet",
    "labelled_split",
    "labelled_splits",
    "named_set",
    "open_files",
    "open_videos",
]
