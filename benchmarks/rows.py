"""Rows of the latency table: what the workers measured, its share of the limit, and ratios between rows of one run."""

from __future__ import annotations

from typing import Any

import numpy as np
from limit import bundle_operations, floor_ms
from workers import Configuration, Failed, Worker, take_turns, warm_up

from ov2vss_runtime.bundle.bundle import Bundle

TURN_SECONDS, MOST_FRAMES, FEWEST_FRAMES = 1.0, 20, 2
"""How long a turn of the first configuration lasts, about, and how many frames that may be."""


def measured(
    configurations: list[Configuration], rounds: int, frames: int | None, end_to_end: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """A record per configuration, and what could not be measured, with the reason."""
    workers, notes = [], []
    for configuration in configurations:
        try:
            workers.append(Worker(configuration))
        except Failed as error:
            notes.append(f"{configuration.title}: {error}")
    if not workers:
        return [], notes
    failed = warm_up(workers)
    first_row = next((w for number, w in enumerate(workers) if number not in failed), None)
    if first_row is not None:
        each = first_row.samples[-1]["network"] / 1000
        frames = frames or int(min(max(TURN_SECONDS / each, FEWEST_FRAMES), MOST_FRAMES))
        take_turns(workers, failed, frames, rounds, frames * 2 if end_to_end else 0)
    records, first = [], {}
    for number, worker in enumerate(workers):
        c = worker.configuration
        if number in failed:
            notes.append(f"{c.title}: {failed[number]}")
            continue
        labels = worker.call("labels")
        reference = first.setdefault((c.bundle, c.classes), labels)
        record = {"title": c.title, "kind": c.kind, "backend": c.backend, "precision": c.precision} | worker.about
        record |= {"frames": len(worker.samples), "ms": worker.summary()}
        record["fps"] = 1000 / record["ms"]["network"]["p50"]
        record["run_fps"] = float(np.median(worker.fps)) if worker.fps else None
        record["same_labels"] = None if c.kind == "image method" else float((labels == reference).mean())
        record["bundle_folder"] = c.bundle
        records.append(record)
        record["peak_mb"] = worker.close()
    return records, notes


def add_limits(records: list[dict[str, Any]], peak: dict[str, tuple[float, str]]) -> None:
    """Operations, least time and the share of it that is reached, for streams over graphs; nothing without a peak."""
    counted: dict[tuple, dict] = {}
    for record in records:
        folder = record.pop("bundle_folder")
        if record["kind"] != "stream" or not peak:
            continue
        key = (folder, record["variant"], record["classes"])
        if key not in counted:
            counted[key] = bundle_operations(Bundle.open(key[0]), key[1], key[2])
        record["operations"] = counted[key]
        record["floor_ms"] = floor_ms(counted[key], record["precision"], peak)
        if record["floor_ms"] is not None:
            record["share_of_limit"] = record["floor_ms"] / record["ms"]["network"]["p50"]


def comparisons(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ratios of medians between rows of one run, over the same bundle and words."""
    found = []
    for key in dict.fromkeys((r["bundle"], tuple(r["size"]), r["classes"]) for r in records):
        rows = [r for r in records if (r["bundle"], tuple(r["size"]), r["classes"]) == key]
        streams = [r for r in rows if r["kind"] == "stream"]
        if not streams:
            continue
        best = min(streams, key=lambda r: r["ms"]["network"]["p50"])

        def add(what: str, slow: dict, fast: dict, stage: str = "network", key: tuple = key) -> None:
            ratio = slow["ms"]["network"]["p50"] / fast["ms"][stage]["p50"]
            found.append({"bundle": key[0], "size": key[1], "classes": key[2], "what": what, "ratio": ratio})

        for row in rows:
            same = next(
                (s for s in streams if (s["backend"], s["precision"]) == (row["backend"], row["precision"])), None
            )
            if row["kind"] == "reference" and same:
                add(f"authors' scheme against the stream, both {same['title']}", row, same)
            if row["kind"] in ("reference", "torch reference"):
                add(f"{row['title']} against the best stream ({best['title']})", row, best)
            if row["kind"] == "image method" and same:
                add(f"image method against the stream, both {same['title']}", row, same)
        for row in streams:
            add(f"network against its backbone alone ({row['title']})", row, row, "backbone")
    return found
