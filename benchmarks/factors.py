"""What a speed-up that changes several things at once is made of: scheme, engine and precision, each by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def factors(rows: Sequence[Row], bundle: str, size: Sequence[int], classes: int, what: str) -> str:
    """A ratio as a product of named ratios between rows that differ in one thing; empty where there is no such product.

    The first is what the stream gains over the authors' scheme with the same engine and precision.

    Args:
        rows: of one run of latency.py.
        bundle, size, classes: of the ratio.
        what: "A against the best stream (B)".
    """
    slow, _, best = what.partition(" against the best stream (")
    if not best:
        return ""
    same = [r for r in rows if (r["bundle"], list(r["size"]), r["classes"]) == (bundle, list(size), classes)]

    def ms(kind: str, backend: str | None = None, precision: str | None = None, title: str | None = None) -> float:
        for r in same:
            if r["kind"] == kind and all(
                value is None or r[key] == value
                for key, value in (("backend", backend), ("precision", precision), ("title", title))
            ):
                return float(r["ms"]["network"]["p50"])
        return float("nan")

    first = next(r for r in same if r["title"] == slow)
    last = next(r for r in same if r["kind"] == "stream" and r["title"] == best.rstrip(")"))
    engine = next((r["backend"] for r in same if r["kind"] == "reference"), "")
    steps = [("scheme", ms("reference", engine, "fp32") / ms("stream", engine, "fp32"))]
    if first["kind"] == "torch reference":
        steps.append((f"{engine} for torch", ms("torch reference") / ms("reference", engine, "fp32")))
    if last["backend"] != engine:
        steps.append(
            (f"{last['backend']} for {engine}", ms("stream", engine, "fp32") / ms("stream", last["backend"], "fp32"))
        )
    if last["precision"] != "fp32":
        steps.append(
            (f"{last['precision']} for fp32", ms("stream", last["backend"], "fp32") / last["ms"]["network"]["p50"])
        )
    if any(math.isnan(value) for _, value in steps):
        return ""  # a step was not measured
    agree = f", labels agree on {last['same_labels']:.0%}" if last["precision"] != "fp32" else ""
    return " x ".join(f"{name} {value:.2f}" for name, value in steps) + agree


def weights(row: Row) -> str:
    """Whether the weights of a row's bundle are random: those of presets are."""
    return "random weights" if row["bundle"] == row["preset"] else "trained weights"
