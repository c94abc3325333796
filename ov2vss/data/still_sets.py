"""Labelled pictures that segmentation is usually compared on, read as they lie in their own folders.

``NAME:DIR`` names one: ``voc21:VOCdevkit/VOC2012``. The masks that others score on are taken: of Pascal Context those
of its 59 classes (``SegmentationClassContext``), of COCO-Stuff the maps of 164 thousand pictures. Words of the classes
stand in ``classes/*.txt`` beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ov2vss.data.images import IMAGES, ImageVideos
from ov2vss.data.label_tables import VOID
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.vocabulary import Vocabulary

CLASSES = Path(__file__).parent / "classes"
BACKGROUND = "background"
THINGS = 80
COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Ids of COCO-Stuff's maps, which count from 0, that no class has."""
COCO_IDS = tuple(k for k in range(182) if k not in COCO_UNUSED)
Table = npt.NDArray[np.uint8]
Pair = tuple[Path, Path, Table]
"""Picture, mask, and the table from stored ids to ids as everywhere here: class k is k + 1, void 0 or 255."""


def _table(ids: dict[int, int], others: int = VOID) -> Table:
    """Stored id -> index of the class; what is not there is ``others``, and 255 void."""
    table = np.full(256, others, np.uint8)
    for stored, index in ids.items():
        table[stored] = index + 1
    table[VOID] = VOID
    return table


@dataclass(frozen=True)
class StillSet:
    """One of these sets.

    Attributes:
        title: as papers call it.
        words: file of :data:`CLASSES`.
        count: classes, of the first lines of that file.
        background: whether pixels of no class count as one more class.
        folders: where the set lies within DIR, tried in this order.
        pairs: pictures and masks of a split below such a folder.
        splits: names of splits.
        layout: what has to be there, in words.
    """

    title: str
    words: str
    count: int
    background: bool
    folders: tuple[str, ...]
    pairs: Callable[[StillSet, Path, str], Iterator[Pair]]
    splits: tuple[str, ...]
    layout: str

    @property
    def nothing(self) -> int:
        """Raw id of pixels of no class."""
        return self.count + 1 if self.background else VOID


def _pascal(masks: str, lists: str) -> Callable[[StillSet, Path, str], Iterator[Pair]]:
    """Pictures named in a list; masks hold 0 for background, k for the k-th class."""

    def pairs(self: StillSet, root: Path, split: str) -> Iterator[Pair]:
        listing = root / "ImageSets" / lists / f"{split}.txt"
        if not listing.is_file():
            return
        table = _table({k + 1: k for k in range(self.count)}, self.nothing)
        for name in listing.read_text(encoding="utf-8").split():
            yield root / "JPEGImages" / f"{name}.jpg", root / masks / f"{name}.png", table

    return pairs


def _ade(self: StillSet, root: Path, split: str) -> Iterator[Pair]:
    part = {"val": "validation", "train": "training"}[split]
    table = _table({k + 1: k for k in range(self.count)})
    for mask in sorted((root / "annotations" / part).glob("*.png")):
        yield _picture(root / "images" / part, mask.stem), mask, table


def _coco(suffix: str) -> Callable[[StillSet, Path, str], Iterator[Pair]]:
    """Masks that others have converted (``*_labelTrainIds.png``, ``*_instanceTrainIds.png``), or else the published
    maps themselves."""

    def pairs(self: StillSet, root: Path, split: str) -> Iterator[Pair]:
        offset = 1 if self.background else 0
        converted = _table({k + offset: k for k in range(self.count)}, self.nothing)
        published = _table({stored: k for k, stored in enumerate(COCO_IDS[: self.count])}, self.nothing)
        for folder in (f"annotations/{split}2017", f"stuffthingmaps/{split}2017", f"{split}2017"):
            found = sorted((root / folder).glob(f"*{suffix}"))
            plain = [p for p in sorted((root / folder).glob("*.png")) if not p.stem.endswith("TrainIds")]
            for mask in found or plain:
                picture = _picture(root / "images" / f"{split}2017", mask.name.removesuffix(suffix).split(".")[0])
                yield picture, mask, converted if found else published
            if found or plain:
                return

    return pairs


def _picture(folder: Path, name: str) -> Path:
    return next((p for s in IMAGES if (p := folder / f"{name}{s}").is_file()), folder / f"{name}.jpg")


_VOC = ("", "VOC2012", "VOCdevkit/VOC2012")
_CONTEXT = ("", "VOC2010", "VOCdevkit/VOC2010")
_COCO = ("", "coco_stuff164k", "COCOStuff164k", "cocostuff")
_VOC_PAIRS = _pascal("SegmentationClass", "Segmentation")
_CONTEXT_PAIRS = _pascal("SegmentationClassContext", "SegmentationContext")
_VOC_LAYOUT = "JPEGImages, SegmentationClass and ImageSets/Segmentation/{split}.txt"
_CONTEXT_LAYOUT = "JPEGImages, SegmentationClassContext and ImageSets/SegmentationContext/{split}.txt"
_COCO_LAYOUT = "images/{split}2017 and annotations/{split}2017"
_SPLITS = ("val", "train")
SETS: dict[str, StillSet] = {
    "voc20": StillSet("Pascal VOC 20", "voc", 20, False, _VOC, _VOC_PAIRS, _SPLITS, _VOC_LAYOUT),
    "voc21": StillSet("Pascal VOC 21", "voc", 20, True, _VOC, _VOC_PAIRS, _SPLITS, _VOC_LAYOUT),
    "context59": StillSet(
        "Pascal Context 59", "context", 59, False, _CONTEXT, _CONTEXT_PAIRS, _SPLITS, _CONTEXT_LAYOUT
    ),
    "context60": StillSet("Pascal Context 60", "context", 59, True, _CONTEXT, _CONTEXT_PAIRS, _SPLITS, _CONTEXT_LAYOUT),
    "ade150": StillSet(
        "ADE20K",
        "ade20k",
        150,
        False,
        ("", "ADEChallengeData2016", "ade/ADEChallengeData2016"),
        _ade,
        _SPLITS,
        "images/validation and annotations/validation",
    ),
    "cocostuff171": StillSet(
        "COCO-Stuff", "cocostuff", 171, False, _COCO, _coco("_labelTrainIds.png"), _SPLITS, _COCO_LAYOUT
    ),
    "cocoobject": StillSet(
        "COCO-Object",
        "cocostuff",
        THINGS,
        True,
        ("", "coco_object", *_COCO[1:]),
        _coco("_instanceTrainIds.png"),
        _SPLITS,
        _COCO_LAYOUT,
    ),
}


def named_set(data: str) -> tuple[str, Path] | None:
    """``("voc21", DIR)`` of ``voc21:DIR``; None where ``data`` names no set of this file."""
    name, colon, folder = data.partition(":")
    return (name, Path(folder)) if colon and name in SETS else None


class StillImages(ImageVideos):
    """One split; every picture is a video of one frame, and all of them are called after the split (so predictions
    lie at ``DIR/<split>/<picture>.png``).

    Args:
        name: one of :data:`SETS`.
        root: the set's folder, or one that holds it under its usual name.
        split: ``val`` or ``train``.
        cache: keep decoded pictures and masks in memory (up to a gigabyte).

    Attributes:
        background: index of the class of all other pixels, the last one; None without such a class.
    """

    def __init__(self, name: str, root: str | Path, split: str = "val", cache: bool = False) -> None:
        super().__init__(cache)
        self.set, self.root = SETS[name], Path(root)
        if split not in self.set.splits:
            raise OV2VSSError(f"{self.set.title} has no split {split!r}", f"choose one of {', '.join(self.set.splits)}")
        words = Vocabulary.from_file(CLASSES / f"{self.set.words}.txt").entries[: self.set.count]
        self.classes = Vocabulary((*words, (BACKGROUND,)) if self.set.background else words)
        self.background = self.set.count if self.set.background else None
        self.unseen = []
        pairs = next((p for f in self.set.folders if (p := list(self.set.pairs(self.set, self.root / f, split)))), [])
        if not pairs:
            known = ", ".join(f or "DIR itself" for f in self.set.folders)
            raise OV2VSSError(
                f"{self.root} holds no {self.set.title} of split {split!r}",
                f"it needs {self.set.layout.format(split=split)}, in one of: {known}",
            )
        for picture, mask, _ in pairs:
            for path in (picture, mask):
                if not path.is_file():
                    raise OV2VSSError(f"{path} is missing", f"unpack {self.set.title} as it is published")
        self._frames = [[picture] for picture, _, _ in pairs]
        self._masks = [{0: mask} for _, mask, _ in pairs]
        self._tables = [table for _, _, table in pairs]
        self.videos = [split] * len(pairs)

    def id_table(self, video: int) -> Table:
        return self._tables[video]

    def mask(self, video: int, index: int) -> npt.NDArray[np.uint8]:
        return self._tables[video][super().mask(video, index)]
