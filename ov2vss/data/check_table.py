"""The outcome of a data check as lines of text, and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from ov2vss.data.check import Report
from ov2vss.data.defects import SplitFacts

BAR = 28
"""Characters that a class name may take."""


def table(report: Report) -> list[str]:
    """Splits, then every class with its id, and its share of the labelled pixels of each split."""
    if not report.splits:
        return [f"{report.data}: clips are generated and need no check"]
    lines = [f"{'split':<8}{'videos':>8}{'frames':>9}{'masks':>8}{'looked at':>11}{'void':>9}"]
    for split in report.splits:
        total, void = int(split.pixels.sum()), _void(split, len(report.classes))
        share = f"{100 * void / total:.1f} %" if total else "-"
        lines.append(
            f"{split.name:<8}{len(split.videos):>8}{split.frames:>9}{split.masks:>8}{split.looked:>11}{share:>9}"
        )
    lines += ["", f"{'id':>3} {'class':<{BAR}}" + "".join(f"{s.name:>9}{'masks':>8}" for s in report.splits)]
    for k, name in enumerate(report.classes):
        row = f"{k + 1:>3} {name[:BAR]:<{BAR}}"
        for split in report.splits:
            labelled = int(split.pixels[1 : len(report.classes) + 1].sum())
            pixels, shown = int(split.pixels[k + 1]), int(split.shown[k + 1])
            row += f"{_percent(pixels, labelled):>9}{shown or '-':>8}"
        lines.append(row + ("" if k in report.trained else "  held out"))
    return lines


def summary(report: Report) -> str:
    """One line for the start of a training."""
    parts = [f"{s.name} {s.masks} of {s.frames} frames labelled" for s in report.splits]
    train = next((s for s in report.splits if s.name == "train"), None)
    if train is not None:
        shown = sum(1 for k in report.trained if train.pixels[k + 1])
        parts.append(f"{shown} of {len(report.trained)} classes have pixels")
    return f"data: {', '.join(parts) or report.data}"


def as_json(report: Report) -> dict[str, Any]:
    """The same for programs."""
    return {
        "data": report.data,
        "sound": not report.errors,
        "splits": {
            s.name: {
                "videos": len(s.videos),
                "frames": s.frames,
                "masks": s.masks,
                "looked_at": s.looked,
                "void": _void(s, len(report.classes)),
                "pixels": {name: int(s.pixels[k + 1]) for k, name in enumerate(report.classes)},
                "ids_beyond": {str(k): int(s.pixels[k]) for k in range(len(report.classes) + 1, 255) if s.pixels[k]},
            }
            for s in report.splits
        },
        "findings": [{"level": f.level, "split": f.split, "text": f.text, "remedy": f.remedy} for f in report.findings],
    }


def _void(split: SplitFacts, classes: int) -> int:
    return int(np.delete(split.pixels, range(1, classes + 1)).sum())


def _percent(part: int, total: int) -> str:
    if not part:
        return "-"
    return "< 0.1 %" if 1000 * part < total else f"{100 * part / total:.1f} %"
