"""Videos that are stored as image files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ov2vss.data.source import CorruptFile
from ov2vss_runtime.bundle.vocabulary import Vocabulary

IMAGES = (".jpg", ".jpeg", ".png")
ID_MODES = ("L", "P", "I;16")
"""Pillow's names of the kinds of images that hold one number a pixel."""
CACHE_BYTES = 1 << 30
"""Decoded images that a data set keeps in memory at most; what comes later is read again each time."""


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as RGB ``[h, w, 3]``; CorruptFile where it cannot be decoded to its last line."""
    return _read(path, "RGB")


def read_ids(path: Path) -> npt.NDArray[np.unsignedinteger]:
    """Class ids of a grey or indexed PNG, ``[h, w]`` uint8 or uint16 (a palette's colours do not matter)."""
    return _read(path, None)


def _read(path: Path, mode: str | None) -> npt.NDArray:
    try:
        with Image.open(path) as image:
            if mode is None and image.mode not in ID_MODES:
                raise CorruptFile(f"{path} is a {image.mode} image", "store class ids in one channel or as a palette")
            # A copy that can be written to: PIL's own memory cannot.
            return np.array(image if mode is None else image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CorruptFile(f"{path} cannot be decoded ({reason})", "replace the file, or leave it out") from None


class ImageVideos:
    """What data sets of image files share; see :class:`ov2vss.data.source.VideoSet` for the meaning of the members."""

    classes: Vocabulary
    unseen: list[int]
    background: int | None = None
    videos: list[str]

    def __init__(self, cache: bool) -> None:
        self._frames: list[list[Path]] = []
        self._masks: list[dict[int, Path]] = []
        self._cache: dict[Path, npt.NDArray] | None = {} if cache else None
        self._cached = 0

    def length(self, video: int) -> int:
        return len(self._frames[video])

    def frame_name(self, video: int, index: int) -> str:
        return self._frames[video][index].stem

    def labelled(self, video: int) -> list[int]:
        return sorted(self._masks[video])

    def frame_file(self, video: int, index: int) -> Path:
        return self._frames[video][index]

    def mask_file(self, video: int, index: int) -> Path:
        return self._masks[video][index]

    def id_table(self, video: int) -> npt.NDArray[np.uint8] | None:
        """Look-up table from stored ids to raw ids; None where files hold raw ids."""
        return None

    def stray_masks(self, video: int) -> list[Path]:
        """Files among the masks that belong to no frame."""
        return []

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._cached_read(self._frames[video][index], read_rgb)

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        path = self._masks[video][index]
        mask = self._cached_read(path, read_ids)
        if mask.dtype != np.uint8:
            raise CorruptFile(f"{path} has more than 8 bits a pixel", "store raw class ids in 8 bits")
        return mask

    def _cached_read(self, path: Path, read: Callable[[Path], npt.NDArray]) -> npt.NDArray:
        if self._cache is not None and path in self._cache:
            return self._cache[path]
        image = read(path)
        if self._cache is not None and self._cached + image.nbytes <= CACHE_BYTES:
            self._cache[path] = image
            self._cached += image.nbytes
        return image
