"""Scores for people, and as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Collection
from typing import Any

TITLES = {
    "miou": "mIoU",
    "seen_miou": "seen mIoU",
    "unseen_miou": "unseen mIoU",
    "harmonic_miou": "harmonic mIoU",
    "fwiou": "fwIoU",
    "macc": "mAcc",
    "pacc": "pAcc",
    "vc8": "VC8",
    "vc16": "VC16",
}
"""Figures in the order in which they are printed; others follow under their own names."""
WIDTH = 100


def groups(scores: dict[str, Any], unseen: Collection[str]) -> dict[str, list[str]]:
    """Names of the classes that have a score, under ``seen`` and ``unseen`` where there are both, else under
    ``classes``; and those without pixels in the truth under ``absent``."""
    scored = [name for name, value in scores["per_class"].items() if value is not None]
    absent = [name for name, value in scores["per_class"].items() if value is None]
    new = [name for name in scored if name in unseen]
    known = [name for name in scored if name not in unseen]
    found = {"seen": known, "unseen": new} if new and known else {"classes": scored}
    return found | ({"absent": absent} if absent else {})


def summary(scores: dict[str, Any]) -> str:
    """All means in one line."""
    figures = {k: v for k, v in scores.items() if isinstance(v, float)}
    ordered = [k for k in TITLES if k in figures] + [k for k in figures if k not in TITLES]
    return "  ".join(f"{TITLES.get(k, k)} {figures[k]:.4f}" for k in ordered) or "no labelled pixel was evaluated"


def table(scores: dict[str, Any], unseen: Collection[str] = ()) -> list[str]:
    """Lines of a report: the summary, the classes in groups, and the summary again, where a long list ends."""
    found = groups(scores, unseen)
    absent = found.pop("absent", [])
    width = max((len(name) for names in found.values() for name in names), default=0)
    lines = [summary(scores)]
    for title, names in ((title, names) for title, names in found.items() if names):
        lines += ["", f"IoU of {len(names)} {title if title == 'classes' else f'{title} classes'}"]
        lines += [f"  {name:<{width}}  {scores['per_class'][name]:.4f}" for name in names]
    if absent:
        text = f"{len(absent)} classes without pixels in the truth, which count for nothing: {', '.join(absent)}"
        lines += ["", *textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)]
    return [*lines, "", summary(scores)] if len(lines) > 1 else lines


def as_csv(scores: dict[str, Any], unseen: Collection[str] = ()) -> str:
    """``group,name,value``: the means under ``mean``, then the IoU of every class; absent ones without a value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "name", "value"])
    writer.writerows(["mean", name, value] for name, value in scores.items() if isinstance(value, float))
    for group, names in groups(scores, unseen).items():
        writer.writerows([group, name, "" if (v := scores["per_class"][name]) is None else v] for name in names)
    return text.getvalue()
