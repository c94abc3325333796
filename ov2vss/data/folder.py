"""A folder in the VSPW layout: ``<split>.txt``, ``data/<video>/origin/*.jpg``, ``data/<video>/mask/*.png``."""

from __future__ import annotations

import logging
from pathlib import Path

from ov2vss.data.images import IMAGES, ImageVideos
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.vocabulary import Vocabulary

log = logging.getLogger("ov2vss")
VSPW_CLASSES = Path(__file__).parent / "classes" / "vspw.txt"
VSPW_SEEN = 80
"""Of VSPW's 124 classes, in the order of their ids, the first ones are seen and the rest unseen."""


class FolderVideos(ImageVideos):
    """Videos of one split.

    ``classes.txt`` lists the classes in the order of their ids, ``unseen.txt``, if it is there, those that zero-shot
    training holds out. A folder without ``classes.txt`` is VSPW itself: its 124 classes, the last 44 unseen.
    ``stills.txt``, if it is there, lists the videos whose frames are pictures without a past (:attr:`stills`).

    Args:
        root: folder that holds the split files and ``data/``.
        split: name of the split file without ``.txt``.
        cache: keep decoded frames and masks in memory (up to a gigabyte).
    """

    def __init__(self, root: str | Path, split: str, cache: bool = False) -> None:
        super().__init__(cache)
        self.root = Path(root)
        if not self.root.is_dir():
            raise OV2VSSError(f"data folder {self.root} does not exist", "check --data")
        split_file = self.root / f"{split}.txt"
        if not split_file.is_file():
            found = sorted(p.stem for p in self.root.glob("*.txt"))
            raise OV2VSSError(f"{self.root} has no {split}.txt", f"splits need one; text files found: {found}")
        class_file = self.root / "classes.txt"
        if class_file.is_file():
            self.classes = Vocabulary.from_file(class_file)
            self.unseen = self._unseen(self.root / "unseen.txt")
        else:
            log.info("%s has no classes.txt: taking the 124 classes of VSPW", self.root)
            self.classes = Vocabulary.from_file(VSPW_CLASSES)
            self.unseen = list(range(VSPW_SEEN, len(self.classes)))
        self.videos = [line.strip() for line in split_file.read_text().splitlines() if line.strip()]
        if not self.videos:
            raise OV2VSSError(f"{split_file} lists no video", "write one video id a line")
        self.stills = self._stills(self.root / "stills.txt")
        for video in self.videos:
            folder = self.root / "data" / video
            frames = sorted(p for p in (folder / "origin").glob("*") if p.suffix.lower() in IMAGES)
            if not frames:
                raise OV2VSSError(f"{folder / 'origin'} has no images", f"check {split_file}")
            masks = {p.stem: p for p in (folder / "mask").glob("*.png")}
            self._frames.append(frames)
            self._masks.append({i: masks[p.stem] for i, p in enumerate(frames) if p.stem in masks})

    def _stills(self, path: Path) -> list[str]:
        """Videos of this split that ``stills.txt`` names."""
        if not path.is_file():
            return []
        names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        for name in names:
            if not (self.root / "data" / name).is_dir():
                raise OV2VSSError(f"{path}: {self.root / 'data' / name} does not exist", "list folders of data/")
        return [name for name in names if name in self.videos]

    def stray_masks(self, video: int) -> list[Path]:
        folder = self.root / "data" / self.videos[video] / "mask"
        used = set(self._masks[video].values())
        return sorted(p for p in folder.glob("*") if p not in used and not p.name.startswith("."))

    def _unseen(self, path: Path) -> list[int]:
        if not path.is_file():
            return []
        names = Vocabulary.from_file(path).names
        missing = [n for n in names if n not in self.classes.names]
        if missing:
            raise OV2VSSError(f"{path}: {missing[0]!r} is not a line of classes.txt", "use the same spelling")
        return [self.classes.names.index(n) for n in names]
