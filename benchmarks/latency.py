"""How fast every configuration is on this machine, how close to the limit, and what it was compared with.

    python benchmarks/latency.py
    python benchmarks/latency.py --bundle my-bundle --classes 20,124 --json latency.json
    python benchmarks/latency.py --preset ov2vss-r101 --reference --torch
    python benchmarks/latency.py --full --json latency.json

Plain, it measures the built-in bundle on every engine and precision that runs here, in under three minutes. A preset
is exported with random weights, once, into the cache folder: its speed means something, its answers nothing.

Every configuration has a process of its own, and they take turns: a slow moment of the machine hits them all. Times are
medians over frames after a warm-up. "network" is a decoded frame to its label map; "run" is ov2vss-run end to end,
where reading, labelling and writing overlap. "limit" is the share of the machine's measured peak of matrix products
that the network reaches. "labels" is the share of pixels of the last frame with the label of the first row of the same
words.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from limit import bundle_operations, floor_ms, peaks
from machine import machine
from subjects import combinations, exported, installed, own_checkpoint, own_size, require_checkpoint, untrained
from tables import stage_table, table
from workers import Configuration, Failed, Worker, take_turns, warm_up, word_list, write_clip

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.engines.backends import BACKENDS
from ov2vss_runtime.engines.bundle_engine import cache_folder
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.processors import available_threads
from ov2vss_runtime.stream.preprocess import parse_size

CLASSES = (20, 124, 500, 1200)
FULL_SIZES = ((256, 480), (480, 864))
"""Frame sizes of --full beside the built-in bundle's own."""
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


def numbers(text: str | None) -> tuple[int | None, ...]:
    """``20,124`` -> (20, 124); nothing -> (None,)."""
    if text is None:
        return (None,)
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise click.BadParameter(f"{text!r} is not a list of numbers of classes like 20,124", param_hint="--classes")
    return found


@click.command(context_settings=CONTEXT)
@click.option("--bundle", "bundles", multiple=True, help="Bundle folder or built-in name; again for more.")
@click.option(
    "--preset",
    "presets",
    multiple=True,
    help="Preset to export with random weights, once, and measure; again for more.",
)
@click.option(
    "--ckpt",
    default=None,
    type=click.Path(path_type=Path, exists=True),
    help="Run folder to export, once, and measure; or, with --bundle, what that was exported from, for torch.",
)
@click.option(
    "--size", "sizes", multiple=True, metavar="HxW", help="Export --preset or --ckpt at this size; again for more."
)
@click.option(
    "--backend", "backends", multiple=True, type=click.Choice(list(BACKENDS)), help="Only these [default: all]."
)
@click.option("--precision", "precisions", multiple=True, help="Only these [default: all but fp16 on processors].")
@click.option("--classes", default=None, metavar="N,N", help="Numbers of words [default: the bundle's own].")
@click.option(
    "--video", default=None, type=click.Path(exists=True), help="What to segment [default: a generated clip]."
)
@click.option("--source", default=None, metavar="HxW", help="Size of the generated clip [default: near the bundle's].")
@click.option("--torch", "with_torch", is_flag=True, help="Also the torch model, eager.")
@click.option("--compile", "compiled", is_flag=True, help="Also the torch model under torch.compile.")
@click.option("--reference", is_flag=True, help="Also the authors' scheme and the image method (onnxruntime fp32).")
@click.option("--stages", is_flag=True, help="Also print mean, p50, p90 and p99 of every stage.")
@click.option(
    "--full",
    is_flag=True,
    help="street-lite at three sizes and full-size ov2vss-r101: everything above. Half an hour and more.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 1000), help="Turns of each row.")
@click.option("--frames", default=None, type=click.IntRange(1, 10_000), help="Frames a turn [default: by speed].")
@click.option("--threads", default=None, type=click.IntRange(1, 1024), help="Threads [default: physical cores].")
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write every figure to FILE."
)
@program
def main(
    bundles: tuple[str, ...],
    presets: tuple[str, ...],
    ckpt: Path | None,
    sizes: tuple[str, ...],
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    classes: str | None,
    video: str | None,
    source: str | None,
    with_torch: bool,
    compiled: bool,
    reference: bool,
    stages: bool,
    full: bool,
    rounds: int,
    frames: int | None,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Print milliseconds a frame by stage of every configuration, in one table."""
    began, threads = time.perf_counter(), threads or available_threads()
    if sizes and not full and (bundles or not (presets or ckpt)):
        raise OV2VSSError("a bundle has one size", "give --preset or --ckpt with --size, to export at others")
    cache = cache_folder("benchmarks")
    cache.mkdir(parents=True, exist_ok=True)
    counts = numbers(classes)
    subjects: list[tuple[str, Path | None, tuple[int | None, ...]]] = []
    stored = tuple(p for p in ("fp16", "int8") if p in precisions)
    if full:
        presets, with_torch, compiled, reference = (*presets, "ov2vss-r101"), True, True, True
    asked = tuple(parse_size(size) for size in sizes)
    exports = [(untrained(preset, cache), asked, CLASSES if full else (None,)) for preset in presets]
    if ckpt is not None and not bundles:
        exports.append((ckpt, asked, (None,)))
    if full:
        exports.append((own_checkpoint(DEFAULT_BUNDLE), asked or FULL_SIZES, (None,)))
    for run, at, usual in exports:
        for size in at or (own_size(run),):
            bundle = str(exported(run, size, ("fp32", *stored), cache))
            subjects.append((bundle, run, counts if classes else usual))
    lists = (None, *CLASSES) if full and not classes else counts
    for bundle in bundles or (() if subjects else (DEFAULT_BUNDLE,)):
        subjects.append((bundle, ckpt or own_checkpoint(bundle), lists))
    if full:
        subjects.append((DEFAULT_BUNDLE, own_checkpoint(DEFAULT_BUNDLE), lists))
    if with_torch or compiled or reference:
        for name, run, _ in subjects:
            require_checkpoint(Bundle.open(name), run)
    for name, _, _ in subjects:
        Bundle.open(name)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        countable = find_spec("onnx") is not None  # the runtime alone measures everything but the limit
        peak = pool.apply(peaks, (threads,)) if countable else {}
    records, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, run, list_of_counts) in enumerate(subjects):
            opened = Bundle.open(name)
            clip = video
            if clip is None:
                shape = parse_size(source) if source else _near(tuple(opened.manifest.preprocess.size))
                clip = str(write_clip(Path(folder) / f"{number}.mp4", shape, 48))
            for count in list_of_counts:
                nouns = None if count is None else tuple(word_list(opened.default_vocabulary.names, count).names)
                base = Configuration("stream", name, classes=count, words=nouns, threads=threads, video=clip)
                base = replace(base, cache=str(cache))
                rows = [
                    replace(base, backend=b, precision=p)
                    for b, p in combinations(opened, backends or installed(), precisions)
                ]
                # The slow ones are compared at the bundle's own words, or at the only ones asked for.
                if count is None or len(list_of_counts) == 1 or (full and count == len(opened.default_vocabulary)):
                    at_ckpt = replace(base, ckpt=str(run))
                    if with_torch:
                        rows.append(replace(at_ckpt, kind="torch"))
                    if compiled:
                        rows.append(replace(at_ckpt, kind="compiled"))
                    if reference:
                        rows += [replace(at_ckpt, kind="reference"), replace(at_ckpt, kind="image method")]
                    if reference and with_torch:
                        rows.append(replace(at_ckpt, kind="torch reference"))
                found, problems = measured(rows, rounds, frames, end_to_end=True)
                records += found
                notes += problems
    with context.Pool(1) as pool:
        again = pool.apply(peaks, (threads,)) if countable else {}
    if not records:
        raise OV2VSSError("nothing could be measured", notes[0] if notes else "no backend has these precisions")
    peak = {kind: max(peak[kind], again[kind]) for kind in peak}
    add_limits(records, peak)

    where = machine()
    click.echo(
        f"{where['processor']} ({', '.join(where['instructions'])}), {threads} threads, not pinned, "
        f"revision {where['revision']}, {where['date']}; "
        + ", ".join(f"{package} {v}" for package, v in where["versions"].items())
    )
    rates = ", ".join(f"{k} {rate:.0f}e9 operations a second ({by})" for k, (rate, by) in peak.items())
    missing = "no limit without the package onnx (pip install 'ov2vss[export]')"
    click.echo(f"measured peak: {rates}" if peak else missing)
    for line in table(records):
        click.echo(line)
    for record in records if stages else ():
        click.echo("\n".join(stage_table(record)))
    ratios = comparisons(records)
    for ratio in ratios:
        click.echo(f"{ratio['bundle']}, {ratio['classes']} classes: {ratio['what']}: {ratio['ratio']:.2f} times")
    for note in notes:
        click.echo(f"not measured: {note}")
    seconds = time.perf_counter() - began
    click.echo(f"{seconds:.0f} s")
    if json_file is not None:
        record = {"script": "latency", "machine": where, "threads": threads, "peaks": peak, "rounds": rounds}
        record |= {"rows": records, "comparisons": ratios, "not_measured": notes, "seconds": seconds}
        json_file.write_text(json.dumps(record, indent=1) + "\n")


def _near(size: tuple[int, int]) -> tuple[int, int]:
    """A usual video size that a bundle's size fits: its shape counts more than its area."""

    def distance(usual: tuple[int, int]) -> float:
        high, wide = np.log(usual[0] / size[0]), np.log(usual[1] / size[1])
        return 4 * abs(wide - high) + abs(wide + high)

    usual = [(240, 432), (360, 640), (480, 854), (540, 960), (720, 1280), (1080, 1920), (360, 480), (480, 480)]
    return min(usual, key=distance)


if __name__ == "__main__":
    main()
