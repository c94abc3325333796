"""Is this data what its owner means? Every mask looked at before training, and what is wrong said in words.

Masks are wrong in silence: whatever id a mask holds, training turns it into a class or into void and goes on. The check
counts the pixels of every id and names what does not fit. Nothing is trained where nothing is labelled.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ov2vss.data import SHAPES, open_files, open_videos
from ov2vss.data.defects import Finding, MaskFacts, SplitFacts, defects, overlaps
from ov2vss.data.images import ID_MODES, ImageVideos
from ov2vss.data.still_sets import named_set
from ov2vss.errors import OV2VSSError

SPLITS = ("train", "val", "test")
MASKS_OF_A_QUICK_LOOK = 300
"""Masks of a split that are looked at before every training, evenly spaced; ``--check`` looks at all."""


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`check_data`."""

    data: str
    classes: list[str]
    trained: list[int]
    """Indices of the classes whose pixels count in training."""
    splits: list[SplitFacts]
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.level == "error"]


def check_data(data: str, hold_out_unseen: bool = False, quick: bool = False, splits: tuple[str, ...] = ()) -> Report:
    """Look at a data set.

    Args:
        data: as ``--data`` names it.
        hold_out_unseen: training will take the pixels of unseen classes for void.
        quick: look at :data:`MASKS_OF_A_QUICK_LOOK` masks a split and not at all of them.
        splits: those to look at; empty: all that are there, of :data:`SPLITS`.

    Raises:
        OV2VSSError: a folder or a list cannot be read at all.
    """
    if data == SHAPES:
        videos = open_videos(data, "train")
        return Report(data, list(videos.classes.names), list(range(len(videos.classes))), [], [])
    wanted = splits or tuple(s for s in SPLITS if _has(data, s)) or ("train",)
    facts, overlap = [], {}
    for split in wanted:
        videos = open_files(data, split)
        facts.append(_split(videos, split, MASKS_OF_A_QUICK_LOOK if quick else None))
        overlap[split] = set(videos.videos)
    classes = list(videos.classes.names)
    trained = [k for k in range(len(classes)) if not (hold_out_unseen and k in videos.unseen)]
    findings = [f for s in facts for f in defects(s, classes, trained if s.name == "train" else None)]
    findings += overlaps(overlap)
    return Report(data, classes, trained, facts, findings)


def require_sound(report: Report) -> None:
    """Raise for the first error of a report; the message says how many more there are."""
    if report.errors:
        first, more = report.errors[0], len(report.errors) - 1
        text = f"{report.data}: {first.split}: {first.text}" + (f" (and {more} more errors: --check)" if more else "")
        raise OV2VSSError(text, first.remedy or "see the whole table with --check")


def _has(data: str, split: str) -> bool:
    if named_set(data) is not None:
        return split == "val"
    root = Path(data)
    return (root / f"{split}.txt").is_file() or (root / "gtFine" / split).is_dir()


def _split(videos: ImageVideos, name: str, limit: int | None) -> SplitFacts:
    facts = SplitFacts(name, list(videos.videos))
    files: list[tuple[Path, Path, npt.NDArray[np.uint8] | None]] = []
    for v, video in enumerate(videos.videos):
        facts.frames += videos.length(v)
        labelled = videos.labelled(v)
        facts.masks += len(labelled)
        facts.strays += videos.stray_masks(v)
        if not labelled:
            facts.bare.append(video)
        files += [(videos.mask_file(v, i), videos.frame_file(v, i), videos.id_table(v)) for i in labelled]
    if limit is not None and len(files) > limit:
        files = [files[round(i)] for i in np.linspace(0, len(files) - 1, limit)]
    facts.looked = len(files)
    with ThreadPoolExecutor(4) as pool:
        for mask in pool.map(lambda x: _mask(*x), files, chunksize=16):
            if mask.counts is not None:
                facts.pixels += mask.counts
                facts.shown += mask.counts > 0
            if mask.fault is not None or mask.size != mask.frame:
                facts.faulty.append(mask)
    return facts


def _mask(path: Path, frame: Path, table: npt.NDArray[np.uint8] | None) -> MaskFacts:
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
            if mode not in ID_MODES:
                return MaskFacts(path, None, "colour", mode, size, size)
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return MaskFacts(path, None, "corrupt", " ".join(str(error).split())[:80])
    if ids.dtype != np.uint8:
        return MaskFacts(path, None, "deep", mode, size, size)
    counts = np.bincount(ids.ravel(), minlength=256)
    if table is not None:
        counts = np.bincount(table, weights=counts, minlength=256).astype(np.int64)
    try:
        with Image.open(frame) as image:  # its header alone
            across = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        across = size
    return MaskFacts(path, counts, size=size, frame=across)
