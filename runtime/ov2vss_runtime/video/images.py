"""Image files as a video, in the order of their names."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, features

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.video.source import FrameSource, VideoFrame

log = logging.getLogger("ov2vss.runtime")

HEIC = (".heic", ".heif", ".hif")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", *HEIC)
MOVING = (b"hevc", b"msf1", b"avis")
"""Brands of files that hold a sequence of pictures, where a HEIC or AVIF file says what it is."""


class ImageSource(FrameSource):
    """One image, a folder or a glob pattern; numbers in names count as numbers (``frame9`` before ``frame10``).

    Images whose size differs from the first one's are refused by name; hidden files (``.name``, among them macOS's
    ``._name``) are no images. Results carry names of the files, so that masks go to ``DIR/<folder>/<name>.png``; the
    folder of ``<video>/origin/*.jpg`` (the VSPW layout) is ``<video>``. A name is what tells a file from the others:
    ``a`` alone, ``a.jpg`` beside ``a.png``, ``left/a`` beside ``right/a``.

    Args:
        pattern: file, folder or glob.
        rate: frames a second.
    """

    def __init__(self, pattern: str, rate: Fraction = Fraction(25)) -> None:
        given = Path(pattern)
        if given.is_file():
            found: Iterable[Path] = [given]
        else:
            found = given.iterdir() if given.is_dir() else map(Path, glob.glob(pattern))
        files = [f for f in found if f.suffix.lower() in SUFFIXES and f.is_file() and not f.name.startswith(".")]
        if not files and not given.is_file():
            raise VideoError(f"{pattern} has no images", f"give a folder or pattern with {', '.join(SUFFIXES)}")
        self.files = sorted(files or [given], key=_natural)
        self.path = given if given.exists() else Path(os.path.commonpath([f.parent.absolute() for f in self.files]))
        home = self.path.resolve()
        self.name = home.stem if given.is_file() else home.parent.name if home.name == "origin" else home.name
        self.names = frame_names(self.files)
        self.rate, self.time_base, self.frames = rate, 1 / rate, len(self.files)
        self.height, self.width = read_image(self.files[0]).shape[:2]
        self._told = False

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
        if not self._told and is_transparent(file):
            self._told = True
            log.warning("%s: transparency is ignored", file)
        return VideoFrame(rgb, index, float(index * self.time_base), name=self.names[index])

    def last_frame(self) -> VideoFrame:
        return self.frame(len(self.files) - 1)


def frame_names(files: Sequence[Path]) -> list[str]:
    """A name for every file that no other has, also where capitals do not count: as short as that allows."""
    home = Path(os.path.commonpath([f.parent.absolute() for f in files]))
    inner = [f.absolute().relative_to(home) for f in files]
    for name in (
        lambda f: f.stem,
        lambda f: f.name,
        lambda f: f.with_suffix("").as_posix(),
        lambda f: f.as_posix(),
    ):
        names = [name(f) for f in inner]
        if len({n.casefold() for n in names}) == len(names):
            return names
    return [f"{number:06d}-{f.stem}" for number, f in enumerate(files)]


def is_still(file: Path) -> bool:
    """Whether a file is a picture and no video: an image that does not move."""
    kind = file.suffix.lower()
    if kind not in SUFFIXES or not file.is_file():
        return False
    if kind in (*HEIC, ".avif"):
        with file.open("rb") as stream:
            moves = stream.read(12)[8:] in MOVING
        # FFmpeg reads what is stored in one piece, and moves; its libraries do not put tiles together.
        return not moves and (_heif() is not None if kind in HEIC else bool(features.check("avif")))
    try:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1) == 1 or image.format in ("TIFF", "MPO")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return True  # the reader of images says what is wrong


def is_transparent(file: Path) -> bool:
    """Whether an image has pixels that are not opaque."""
    try:
        if file.suffix.lower() in HEIC and (heif := _heif()) is not None:
            return bool(heif.open_heif(file).mode.endswith("A"))
        with Image.open(file) as image:
            if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
                return False
            return image.convert("RGBA").getextrema()[3][0] < 255  # type: ignore[index,misc]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def read_image(file: Path) -> npt.NDArray[np.uint8]:
    """RGB ``[h, w, 3]`` uint8, upright; grey becomes RGB, transparency is ignored, 16 bits become 8."""
    kind = file.suffix.lower()
    if kind in HEIC:
        return _read_heic(file)
    try:
        if kind == ".avif":
            with Image.open(file) as opened:
                return np.asarray(opened.convert("RGB"))
        data = np.frombuffer(file.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, ValueError, cv2.error, Image.DecompressionBombError):
        image = None
    if image is None:
        raise VideoError(f"{file} cannot be read as an image", "remove or replace it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _heif() -> Any:
    """The package that reads HEIC in tiles, as phones write it, or None."""
    try:
        import pi_heif
    except ImportError:
        return None
    return pi_heif


def _read_heic(file: Path) -> npt.NDArray[np.uint8]:
    heif = _heif()
    if heif is None:
        from ov2vss_runtime.video.file import VideoReader

        return next(iter(VideoReader(file))).rgb
    try:
        return np.asarray(heif.open_heif(file, convert_hdr_to_8bit=True).to_pillow().convert("RGB"))
    except (OSError, ValueError, RuntimeError, SyntaxError, TypeError):
        raise VideoError(f"{file} cannot be read as an image", "remove or replace it") from None


def _natural(file: Path) -> list[list[tuple[int, int | str]]]:
    """Folder by folder, numbers as numbers."""

    def parts(text: str) -> list[tuple[int, int | str]]:
        return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"([0-9]+)", text) if p]

    return [parts(str(part)) for part in file.parts]
