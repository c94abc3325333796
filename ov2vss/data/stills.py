"""Single pictures among videos: every frame of a folder of stills is a video of one frame."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from ov2vss.data.source import VideoSet


class StillFrames:
    """A set of videos in which some, or all, are taken apart into videos of one frame.

    A still keeps the name of its folder, so that predictions are found at ``DIR/<folder>/<frame>.png`` as before. Its
    references and its distant frame are the picture itself, in training and in evaluation.

    Args:
        videos: the set that the frames come from.
        folders: names of the videos that are stills; None for all.
    """

    def __init__(self, videos: VideoSet, folders: Collection[str] | None = None) -> None:
        self._inner = videos
        self.classes, self.unseen, self.background = videos.classes, videos.unseen, videos.background
        self._places: list[tuple[int, int | None]] = []
        """Video of the inner set, and its frame for a still or None for a whole video."""
        for video, name in enumerate(videos.videos):
            if folders is None or name in folders:
                self._places += [(video, frame) for frame in range(videos.length(video))]
            else:
                self._places.append((video, None))
        self.videos = [videos.videos[video] for video, _ in self._places]
        self._labelled = [set(videos.labelled(video)) for video in range(len(videos.videos))]

    def length(self, video: int) -> int:
        inner, still = self._places[video]
        return self._inner.length(inner) if still is None else 1

    def labelled(self, video: int) -> list[int]:
        inner, still = self._places[video]
        if still is None:
            return self._inner.labelled(inner)
        return [0] if still in self._labelled[inner] else []

    def frame_name(self, video: int, index: int) -> str:
        return self._inner.frame_name(*self._place(video, index))

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._inner.frame(*self._place(video, index))

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._inner.mask(*self._place(video, index))

    def _place(self, video: int, index: int) -> tuple[int, int]:
        inner, still = self._places[video]
        return inner, index if still is None else still
