"""Cityscapes: snippets of 30 frames (``leftImg8bit_sequence``) of which the 20th has a label (``gtFine``)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ov2vss.data.images import ImageVideos
from ov2vss.data.label_tables import VOID
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.vocabulary import Vocabulary

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""In the order of the train ids."""
NOVEL = ("sidewalk", "fence", "traffic light", "traffic sign", "vegetation", "terrain", "rider", "train")
"""Not literally among VSPW's 80 seen classes: reported apart when a model comes from there."""
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Full label id of every class, for folders whose train-id masks were never made."""
BEFORE, AFTER = 19, 10
"""Frames of a snippet before and after the labelled one."""
NAME = re.compile(r"(?P<drive>.+_\d{6})_(?P<frame>\d{6})_gtFine_label(?P<kind>TrainIds|Ids)\.png")


class CityscapesVideos(ImageVideos):
    """One split (``train``, ``val``); a video is a snippet, named after its labelled frame.

    Masks are ``gtFine/<split>/<city>/*_gtFine_labelTrainIds.png``, or ``*_labelIds.png`` where those are missing.
    Frames are ``leftImg8bit_sequence/<split>/<city>/*_leftImg8bit.png``; from ``leftImg8bit`` alone, videos are single
    frames.

    Args:
        root: folder that holds ``gtFine`` and the frames.
        split: name of the sub-folder.
        cache: keep decoded frames and masks in memory (up to a gigabyte).
    """

    def __init__(self, root: str | Path, split: str, cache: bool = False) -> None:
        super().__init__(cache)
        self.root = Path(root)
        self.classes = Vocabulary.from_lines(CLASSES, "Cityscapes")
        self.unseen = [CLASSES.index(name) for name in NOVEL]
        labels = self.root / "gtFine" / split
        if not labels.is_dir():
            found = sorted(p.name for p in (self.root / "gtFine").glob("*") if p.is_dir())
            raise OV2VSSError(f"{self.root / 'gtFine'} has no split {split!r}", f"choose one of: {found}")
        folders = [f for f in ("leftImg8bit_sequence", "leftImg8bit") if (self.root / f / split).is_dir()]
        if not folders:
            raise OV2VSSError(
                f"{self.root} has neither leftImg8bit_sequence/{split} nor leftImg8bit/{split}",
                "unpack the frames beside gtFine",
            )
        self.videos, tables = [], {"TrainIds": _table(range(len(CLASSES))), "Ids": _table(LABEL_IDS)}
        self._tables: list[npt.NDArray[np.uint8]] = []
        chosen: dict[tuple[str, str, str], tuple[str, Path]] = {}
        for path in sorted(labels.glob("*/*.png")):
            if match := NAME.fullmatch(path.name):
                key = (path.parent.name, match["drive"], match["frame"])
                if key not in chosen or match["kind"] == "TrainIds":
                    chosen[key] = (match["kind"], path)
        for (city, drive, frame), (kind, path) in chosen.items():
            where = self.root / folders[0] / split / city
            numbers = range(max(0, int(frame) - BEFORE), int(frame) + AFTER + 1)
            frames = [p for n in numbers if (p := where / f"{drive}_{n:06d}_leftImg8bit.png").is_file()]
            names = [p.name for p in frames]
            if f"{drive}_{frame}_leftImg8bit.png" not in names:
                raise OV2VSSError(
                    f"{where} has no frame for the label {path.name}", "unpack the whole archive of frames"
                )
            self.videos.append(f"{drive}_{frame}")
            self._frames.append(frames)
            self._masks.append({names.index(f"{drive}_{frame}_leftImg8bit.png"): path})
            self._tables.append(tables[kind])
        if not self.videos:
            raise OV2VSSError(
                f"{labels} holds no *_gtFine_labelTrainIds.png or *_gtFine_labelIds.png", "unpack gtFine there"
            )

    def id_table(self, video: int) -> npt.NDArray[np.uint8]:
        return self._tables[video]

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._tables[video][super().mask(video, index)]


def _table(ids: range | tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Look-up table from stored ids to raw ids as everywhere here: class k is k + 1, void 255."""
    table = np.full(256, VOID, np.uint8)
    table[list(ids)] = np.arange(1, len(CLASSES) + 1, dtype=np.uint8)
    return table
