"""Image files as a video, in the order of their names."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.source import FrameSource, VideoFrame

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class ImageSource(FrameSource):
    """A folder or a glob pattern; numbers in names count as numbers (``frame9`` before ``frame10``).

    Images whose size differs from the first one's are refused by name. Results carry the names of the files, so that
    masks go to ``DIR/<folder>/<name>.png``; the folder of ``<video>/origin/*.jpg`` (the VSPW layout) is ``<video>``.

    Args:
        pattern: folder or glob.
        rate: frames a second.
    """

    def __init__(self, pattern: str, rate: Fraction = Fraction(25)) -> None:
        folder = Path(pattern)
        found = folder.iterdir() if folder.is_dir() else map(Path, glob.glob(pattern))
        self.files = sorted((f for f in found if f.suffix.lower() in SUFFIXES and f.is_file()), key=_natural)
        if not self.files:
            raise VideoError(f"{pattern} has no images", f"give a folder or pattern with {', '.join(SUFFIXES)}")
        self.path = folder if folder.is_dir() else self.files[0].parent
        home = self.path.resolve()
        self.name = home.parent.name if home.name == "origin" else home.name
        self.rate, self.time_base, self.frames = rate, 1 / rate, len(self.files)
        self.height, self.width = read_image(self.files[0]).shape[:2]

    def __iter__(self) -> Iterator[VideoFrame]:
        for index in range(len(self.files)):
            yield self.frame(index)

    def frame(self, index: int) -> VideoFrame:
        """One image by its number."""
        file = self.files[index]
        rgb = read_image(file)
        if rgb.shape[:2] != (self.height, self.width):
            raise VideoError(
                f"{file} is {rgb.shape[1]}x{rgb.shape[0]}, the first image {self.width}x{self.height}",
                "give images of one size",
            )
        return VideoFrame(rgb, index, float(index * self.time_base), name=file.stem)

    def last_frame(self) -> VideoFrame:
        return self.frame(len(self.files) - 1)


def read_image(file: Path) -> npt.NDArray[np.uint8]:
    """RGB ``[h, w, 3]`` uint8, upright; grey becomes RGB, transparency is ignored, 16 bits become 8."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise VideoError(f"{file} cannot be read as an image", "remove or replace it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _natural(file: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", file.name)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts if p]
