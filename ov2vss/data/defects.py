"""What is wrong with labelled data, in words: from counted pixels to findings with a remedy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

SMOOTHED_VALUES = 20
"""So many different ids beyond the list are no spelling mistake: somebody interpolated."""
MOST_NAMED = 4
"""Examples that a message names."""

Fault = Literal["colour", "deep", "corrupt"]
Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """What does not fit. An ``error`` stops training."""

    level: Level
    split: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.split}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class MaskFacts:
    """One mask file: pixels of every raw id, or why they cannot be read; sizes as (W, H)."""

    path: Path
    counts: npt.NDArray[np.int64] | None = None
    fault: Fault | None = None
    detail: str = ""
    size: tuple[int, int] = (0, 0)
    frame: tuple[int, int] = (0, 0)


@dataclass
class SplitFacts:
    """One split: what was found in its folders and masks."""

    name: str
    videos: list[str] = field(default_factory=list)
    frames: int = 0
    masks: int = 0
    looked: int = 0
    strays: list[Path] = field(default_factory=list)
    """Files in mask folders that belong to no frame, or are no PNG."""
    bare: list[str] = field(default_factory=list)
    """Videos without any mask."""
    pixels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    shown: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """Masks that hold an id at all."""
    faulty: list[MaskFacts] = field(default_factory=list)

    @property
    def other_size(self) -> list[MaskFacts]:
        return [m for m in self.faulty if m.fault is None]


FAULTS: tuple[tuple[Fault, str, str], ...] = (
    ("colour", "colours, not ids ({})", "write class ids in one channel, or as an indexed PNG"),
    ("deep", "more than 8 bits a pixel ({})", "store raw class ids in 8 bits"),
    ("corrupt", "not readable ({})", "write these files again"),
)


def defects(facts: SplitFacts, classes: list[str], trained: list[int] | None) -> list[Finding]:
    """What is wrong in one split.

    Args:
        facts: what was counted.
        classes: names, in the order of their ids.
        trained: of the split of training, the indices of the classes whose pixels count; None for other splits.
    """
    found = _Findings(facts, classes, trained)
    unreadable = sum(m.fault is not None for m in facts.faulty)
    found.faults(all_of_them=0 < facts.looked == unreadable)
    if not facts.masks:
        found.no_masks()
    elif unreadable < facts.looked:
        found.ids()
    if facts.masks and facts.strays:
        shown = ", ".join(p.name for p in facts.strays[:MOST_NAMED])
        found.warn(f"{len(facts.strays)} files in mask folders belong to no frame: {shown}", "name masks as frames")
    if facts.masks and facts.bare:
        found.warn(
            f"{len(facts.bare)} of {len(facts.videos)} videos have no mask: {', '.join(facts.bare[:MOST_NAMED])}"
        )
    return found.found


class _Findings:
    """Findings of one split; what is an error in the split of training is a warning elsewhere."""

    def __init__(self, facts: SplitFacts, classes: list[str], trained: list[int] | None) -> None:
        self.facts, self.classes, self.trained = facts, classes, trained
        self.found: list[Finding] = []

    def error(self, text: str, remedy: str = "") -> None:
        self.found.append(Finding("error", self.facts.name, text, remedy))

    def warn(self, text: str, remedy: str = "") -> None:
        self.found.append(Finding("warning", self.facts.name, text, remedy))

    def stop(self, text: str, remedy: str = "") -> None:
        """Training on this is pointless; scoring with it is only empty."""
        (self.warn if self.trained is None else self.error)(text, remedy)

    def faults(self, all_of_them: bool) -> None:
        """Masks that cannot be read as ids, and those of another size."""
        facts = self.facts
        counts = Counter(m.fault for m in facts.faulty)
        for kind, what, remedy in FAULTS:
            if counts[kind]:
                examples = [m for m in facts.faulty if m.fault == kind]
                text = f"{counts[kind]} of {facts.looked} masks are {what.format(examples[0].detail)}, "
                (self.error if all_of_them else self.warn)(text + _names(examples), remedy)
        if other := facts.other_size:
            (w, h), (frame_w, frame_h) = other[0].size, other[0].frame
            self.error(
                f"{len(other)} of {facts.looked} masks have another size than their frame, {_names(other)}: "
                f"{w} x {h} pixels for a frame of {frame_w} x {frame_h}",
                "write them again at the size of the frames",
            )

    def no_masks(self) -> None:
        facts = self.facts
        if facts.strays:
            example = facts.strays[0]
            self.stop(
                f"no frame has a mask, but there are {len(facts.strays)} other files, such as "
                f"{example.parent.name}/{example.name}",
                "masks are PNG files named as their frames: origin/0001.jpg, mask/0001.png",
            )
        else:
            self.stop(f"none of {facts.frames} frames has a mask", "put PNG masks into data/<video>/mask")

    def ids(self) -> None:
        """What the ids of the readable masks say."""
        classes, pixels = self.classes, self.facts.pixels
        count, inside = len(classes), pixels[1 : len(classes) + 1]
        if not inside.any():
            self._nothing_labelled()
            return
        beyond = [k for k in range(count + 1, 255) if pixels[k]]
        if len(beyond) > SMOOTHED_VALUES:
            self.warn(
                f"masks hold {len(beyond)} ids beyond the {count} classes, as after smoothing: "
                f"{_share(pixels[beyond].sum(), pixels)} of the pixels are void",
                "resize masks by nearest neighbour alone, and never save them as JPEG",
            )
        elif beyond:
            ids = ", ".join(f"{k} ({_share(pixels[k], pixels)})" for k in beyond[:8])
            self.warn(
                f"masks hold ids beyond the {count} classes, which are void: {ids}",
                "add the missing lines to classes.txt, or correct the masks",
            )
        from_zero = count > 1 and pixels[0] and not pixels[count] and not beyond and bool(pixels[1:count].all())
        if from_zero:
            (self.stop if count == 2 else self.warn)(
                f"ids seem to begin at 0: 0 has {_share(pixels[0], pixels)} of the pixels and is void, and id {count} "
                f"({classes[-1]!r}) is nowhere",
                "add 1 to every id of a class",
            )
        if self.trained is not None and not (from_zero and count == 2):
            self._classes(self.trained, inside)

    def _nothing_labelled(self) -> None:
        classes, pixels = self.classes, self.facts.pixels
        present = [k for k in range(256) if pixels[k]]
        remedy = f"write id k for line k of the class list: 1 for {classes[0]!r}"
        remedy += f", 2 for {classes[1]!r}" if len(classes) > 1 else ""
        if set(present) == {0, 255}:
            self.stop("nothing is labelled: masks are 0/255, and both mean void", remedy)
            return
        ids = ", ".join(map(str, present[:8])) + (" ..." if len(present) > 8 else "")
        self.stop(f"nothing is labelled: masks hold {ids}, and classes have the ids 1 to {len(classes)}", remedy)

    def _classes(self, trained: list[int], inside: npt.NDArray[np.int64]) -> None:
        """Classes that training counts, and those of them that have pixels."""
        facts, total = self.facts, len(trained)
        labelled = [k for k in trained if inside[k]]
        absent = [self.classes[k] for k in trained if not inside[k]]
        names = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
        if not labelled:
            self.error("only held-out classes have pixels", "set hold_out_unseen=false, or label seen classes")
        elif len(labelled) == 1 and total > 1:
            self.error(
                f"only one of {total} classes is labelled, {self.classes[labelled[0]]!r}: nothing can be told apart",
                f"label another one too ({names})",
            )
        elif absent:
            sampled = " in the masks looked at" if facts.looked < facts.masks else ""
            self.warn(f"{len(absent)} of {total} classes have no pixel{sampled}: {names}")


def overlaps(videos: dict[str, set[str]]) -> list[Finding]:
    """Videos that stand in two splits.

    Args:
        videos: by split.
    """
    found = []
    names = list(videos)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if both := sorted(videos[a] & videos[b]):
                shown = ", ".join(both[:MOST_NAMED]) + (" ..." if len(both) > MOST_NAMED else "")
                text = f"{len(both)} videos are in {b} too, whose scores then say little: {shown}"
                found.append(Finding("warning", a, text, f"take them out of {a}.txt or {b}.txt"))
    return found


def _names(masks: list[MaskFacts]) -> str:
    return "such as " + ", ".join(f"{m.path.parent.parent.name}/{m.path.name}" for m in masks[:2])


def _share(part: int, pixels: npt.NDArray[np.int64]) -> str:
    return f"{100 * int(part) / int(pixels.sum()):.1f} %"
