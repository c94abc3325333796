"""Rows of latency.py as tables of Markdown, for the terminal and the report."""

from __future__ import annotations

from typing import Any

from limit import FRAME_GRAPHS

COLUMNS = ("decode", "preprocess", "backbone", "step", "decoder", "labels", "overlay", "encode")


def table(records: list[dict[str, Any]]) -> list[str]:
    """The one table, as lines of Markdown."""
    head = ["configuration", "classes", "size", *COLUMNS, "network", "p90", "p99", "fps", "run fps"]
    head += ["peak MB", "limit", "labels"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in records:
        ms = r["ms"]
        cells = [f"{r['bundle']}, {r['title']}", str(r["classes"]), "x".join(map(str, r["size"]))]
        cells += [f"{ms[name]['p50']:.1f}" if name in ms else "" for name in COLUMNS]
        cells += [f"{ms['network'][p]:.1f}" for p in ("p50", "p90", "p99")] + [f"{r['fps']:.1f}"]
        cells += [f"{r['run_fps']:.1f}" if r["run_fps"] else "", f"{r['peak_mb']:.0f}"]
        cells += [f"{r['share_of_limit']:.0%}" if "share_of_limit" in r else ""]
        cells += [f"{r['same_labels']:.4f}" if r["same_labels"] is not None else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def stage_table(record: dict[str, Any]) -> list[str]:
    """Mean and percentiles of every stage of one configuration, as lines of Markdown."""
    lines = [f"| {record['bundle']}, {record['title']}, {record['classes']} classes | mean | p50 | p90 | p99 |"]
    lines.append("|---|---|---|---|---|")
    for name, ms in record["ms"].items():
        lines.append(f"| {name} | " + " | ".join(f"{ms[p]:.2f}" for p in ("mean", "p50", "p90", "p99")) + " |")
    return lines


def limit_table(rows: list[dict[str, Any]]) -> list[str]:
    """Operations of the graphs of a frame, the least time they take, and what was reached, as lines of Markdown."""
    lines = [
        f"| configuration | classes | size | {' | '.join(FRAME_GRAPHS)} | least ms | reached | network / backbone |"
    ]
    lines.append("|" + "---|" * (len(FRAME_GRAPHS) + 6))
    for r in rows:
        if r.get("floor_ms") is None:
            continue
        counted = [f"{sum(r['operations'][g].values()) / 1e9:.1f}" for g in FRAME_GRAPHS]
        cells = [f"{r['bundle']}, {r['title']}", str(r["classes"]), "x".join(map(str, r["size"])), *counted]
        cells += [f"{r['floor_ms']:.1f}", f"{r['share_of_limit']:.0%}"]
        cells += [f"{r['ms']['network']['p50'] / r['ms']['backbone']['p50']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
