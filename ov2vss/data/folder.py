"""A folder in the VSPW layout: ``<split>.txt``, ``data/<video>/origin/*.jpg``, ``data/<video>/mask/*.png``."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.errors import OV2VSSError
from ov2vss_runtime.vocabulary import Vocabulary

IMAGES = (".jpg", ".jpeg", ".png")
log = logging.getLogger("ov2vss")


class FolderVideos:
    """Videos of one split.

    Args:
        root: folder that holds the split files, ``data/`` and ``classes.txt`` (and, optionally, ``unseen.txt`` with
            the classes that are held out in zero-shot training).
        split: name of the split file without ``.txt``.
        cache: keep decoded frames and masks in memory (for small sets).
    """

    def __init__(self, root: str | Path, split: str, cache: bool = False) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise OV2VSSError(f"data folder {self.root} does not exist", "check --data")
        split_file = self.root / f"{split}.txt"
        if not split_file.is_file():
            found = sorted(p.stem for p in self.root.glob("*.txt"))
            raise OV2VSSError(f"{self.root} has no {split}.txt", f"splits need one; text files found: {found}")
        class_file = self.root / "classes.txt"
        if not class_file.is_file():
            raise OV2VSSError(
                f"{self.root} has no classes.txt", "write the class names there, one a line, in mask order"
            )
        self.classes = Vocabulary.from_file(class_file)
        self.unseen = self._unseen(self.root / "unseen.txt")
        self.videos = [line.strip() for line in split_file.read_text().splitlines() if line.strip()]
        self._frames: list[list[Path]] = []
        self._masks: list[dict[int, Path]] = []
        for video in self.videos:
            folder = self.root / "data" / video
            frames = sorted(p for p in (folder / "origin").glob("*") if p.suffix.lower() in IMAGES)
            if not frames:
                raise OV2VSSError(f"{folder / 'origin'} has no images", f"check {split_file}")
            masks = {p.stem: p for p in (folder / "mask").glob("*.png")}
            self._frames.append(frames)
            self._masks.append({i: masks[p.stem] for i, p in enumerate(frames) if p.stem in masks})
        if not self.videos:
            raise OV2VSSError(f"{split_file} lists no video", "write one video id a line")
        self._cache: dict[Path, npt.NDArray[np.uint8]] | None = {} if cache else None

    def _unseen(self, path: Path) -> list[int]:
        if not path.is_file():
            return []
        names = Vocabulary.from_file(path).names
        missing = [n for n in names if n not in self.classes.names]
        if missing:
            raise OV2VSSError(f"{path}: {missing[0]!r} is not a line of classes.txt", "use the same spelling")
        return [self.classes.names.index(n) for n in names]

    def length(self, video: int) -> int:
        return len(self._frames[video])

    def frame_name(self, video: int, index: int) -> str:
        return self._frames[video][index].stem

    def labelled(self, video: int) -> list[int]:
        return sorted(self._masks[video])

    def frame(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._read(self._frames[video][index], cv2.IMREAD_COLOR_RGB)

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        path = self._masks[video][index]
        mask = self._read(path, cv2.IMREAD_UNCHANGED)
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise OV2VSSError(f"mask {path} is not an 8-bit single-channel PNG", "store raw class ids in one channel")
        return mask

    def _read(self, path: Path, flags: int) -> npt.NDArray[np.uint8]:
        if self._cache is not None and path in self._cache:
            return self._cache[path]
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, flags) if data.size else None
        if image is None:
            raise OV2VSSError(f"image {path} cannot be decoded", "replace the file or take its video out of the split")
        if self._cache is not None:
            self._cache[path] = image
        return image
