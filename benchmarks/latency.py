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
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from limit import peaks
from machine import machine
from rows import add_limits, comparisons, measured
from subjects import combinations, exported, installed, own_checkpoint, own_size, require_checkpoint, untrained
from tables import stage_table, table
from workers import Configuration, word_list, write_clip

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


@dataclass(frozen=True)
class Subject:
    """A bundle to measure, the run that it was exported from (for torch), and numbers of words; None: its own."""

    bundle: str
    run: Path | None
    counts: tuple[int | None, ...]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; see the options of :func:`main`."""

    bundles: tuple[str, ...]
    presets: tuple[str, ...]
    ckpt: Path | None
    sizes: tuple[tuple[int, int], ...]
    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    counts: tuple[int | None, ...]
    video: str | None
    source: tuple[int, int] | None
    with_torch: bool
    compiled: bool
    reference: bool
    full: bool
    threads: int
    cache: Path

    def subjects(self) -> list[Subject]:
        """Bundles in the order of their rows; presets and checkpoints are exported into the cache first."""
        found = [
            Subject(str(exported(run, size, ("fp32", *self._stored()), self.cache)), run, counts)
            for run, sizes, counts in self._exports()
            for size in sizes or (own_size(run),)
        ]
        own = (None, *CLASSES) if self.full and self.counts == (None,) else self.counts
        named = self.bundles or (() if found else (DEFAULT_BUNDLE,))
        found += [Subject(name, self.ckpt or own_checkpoint(name), own) for name in named]
        if self.full:
            found.append(Subject(DEFAULT_BUNDLE, own_checkpoint(DEFAULT_BUNDLE), own))
        for subject in found:
            opened = Bundle.open(subject.bundle)
            if self.with_torch or self.compiled or self.reference:
                require_checkpoint(opened, subject.run)
        return found

    def _stored(self) -> tuple[str, ...]:
        return tuple(p for p in ("fp16", "int8") if p in self.precisions)

    def _exports(self) -> list[tuple[Path, tuple[tuple[int, int], ...], tuple[int | None, ...]]]:
        """Runs to export, at which sizes (none: their own), and their numbers of words."""
        asked = self.counts != (None,)
        exports = [
            (untrained(preset, self.cache), self.sizes, self.counts if asked or not self.full else CLASSES)
            for preset in self.presets
        ]
        if self.ckpt is not None and not self.bundles:
            exports.append((self.ckpt, self.sizes, self.counts))
        if self.full:
            exports.append((own_checkpoint(DEFAULT_BUNDLE), self.sizes or FULL_SIZES, self.counts))
        return exports

    def clip(self, opened: Bundle, generated: Path) -> str:
        """The video to segment: the one that was named, or a generated one of the bundle's shape."""
        if self.video is not None:
            return self.video
        return str(write_clip(generated, self.source or _near(tuple(opened.manifest.preprocess.size)), 48))

    def rows(self, subject: Subject, opened: Bundle, count: int | None, clip: str) -> list[Configuration]:
        """The configurations of one table row each, for one number of words."""
        words = opened.default_vocabulary
        nouns = None if count is None else tuple(word_list(words.names, count).names)
        base = Configuration("stream", subject.bundle, classes=count, words=nouns, threads=self.threads, video=clip)
        base = replace(base, cache=str(self.cache))
        rows = [
            replace(base, backend=backend, precision=precision)
            for backend, precision in combinations(opened, self.backends or installed(), self.precisions)
        ]
        # The slow ones are compared at the bundle's own words, or at the only ones asked for.
        if count is None or len(subject.counts) == 1 or (self.full and count == len(words)):
            rows += [replace(base, ckpt=str(subject.run), kind=kind) for kind in self._slow_kinds()]
        return rows

    def _slow_kinds(self) -> list[str]:
        wanted = {
            "torch": self.with_torch,
            "compiled": self.compiled,
            "reference": self.reference,
            "image method": self.reference,
            "torch reference": self.reference and self.with_torch,
        }
        return [kind for kind, asked in wanted.items() if asked]


def measure(request: Request, rounds: int, frames: int | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Records of every row, and what could not be measured, with the reason."""
    records: list[dict[str, Any]] = []
    notes: list[str] = []
    subjects = request.subjects()
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(subjects):
            opened = Bundle.open(subject.bundle)
            clip = request.clip(opened, Path(folder) / f"{number}.mp4")
            for count in subject.counts:
                found, problems = measured(request.rows(subject, opened, count, clip), rounds, frames, end_to_end=True)
                records += found
                notes += problems
    if not records:
        raise OV2VSSError("nothing could be measured", notes[0] if notes else "no backend has these precisions")
    return records, notes


def measured_peaks(threads: int) -> dict[str, tuple[float, str]]:
    """The machine's peaks, in a process of its own; nothing without the package onnx, which only the limit needs."""
    if find_spec("onnx") is None:
        return {}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peaks, (threads,))


def show(report: dict[str, Any], stages: bool) -> None:
    """Print the machine, the table, the ratios and what is missing."""
    where, peak = report["machine"], report["peaks"]
    click.echo(
        f"{where['processor']} ({', '.join(where['instructions'])}), {report['threads']} threads, not pinned, "
        f"revision {where['revision']}, {where['date']}; "
        + ", ".join(f"{package} {v}" for package, v in where["versions"].items())
    )
    rates = ", ".join(f"{k} {rate:.0f}e9 operations a second ({by})" for k, (rate, by) in peak.items())
    missing = "no limit without the package onnx (pip install 'ov2vss[export]')"
    click.echo(f"measured peak: {rates}" if peak else missing)
    for line in table(report["rows"]):
        click.echo(line)
    for record in report["rows"] if stages else ():
        click.echo("\n".join(stage_table(record)))
    for ratio in report["comparisons"]:
        click.echo(f"{ratio['bundle']}, {ratio['classes']} classes: {ratio['what']}: {ratio['ratio']:.2f} times")
    for note in report["not_measured"]:
        click.echo(f"not measured: {note}")
    click.echo(f"{report['seconds']:.0f} s")


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
    sizes: tuple[str, ...],
    classes: str | None,
    source: str | None,
    stages: bool,
    rounds: int,
    frames: int | None,
    threads: int | None,
    json_file: Path | None,
    **asked: Any,
) -> None:
    """Print milliseconds a frame by stage of every configuration, in one table."""
    began, threads = time.perf_counter(), threads or available_threads()
    if sizes and not asked["full"] and (asked["bundles"] or not (asked["presets"] or asked["ckpt"])):
        raise OV2VSSError("a bundle has one size", "give --preset or --ckpt with --size, to export at others")
    if asked["full"]:
        asked |= {
            "presets": (*asked["presets"], "ov2vss-r101"),
            "with_torch": True,
            "compiled": True,
            "reference": True,
        }
    cache = cache_folder("benchmarks")
    cache.mkdir(parents=True, exist_ok=True)
    request = Request(
        sizes=tuple(parse_size(size) for size in sizes),
        counts=numbers(classes),
        source=parse_size(source) if source else None,
        threads=threads,
        cache=cache,
        **asked,
    )
    before = measured_peaks(threads)
    records, notes = measure(request, rounds, frames)
    after = measured_peaks(threads)
    peak = {kind: max(before[kind], after[kind]) for kind in before}
    add_limits(records, peak)
    report = {"script": "latency", "machine": machine(), "threads": threads, "peaks": peak, "rounds": rounds}
    report |= {"rows": records, "comparisons": comparisons(records), "not_measured": notes}
    report["seconds"] = time.perf_counter() - began
    show(report, stages)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")


def _near(size: tuple[int, int]) -> tuple[int, int]:
    """A usual video size that a bundle's size fits: its shape counts more than its area."""

    def distance(usual: tuple[int, int]) -> float:
        high, wide = np.log(usual[0] / size[0]), np.log(usual[1] / size[1])
        return 4 * abs(wide - high) + abs(wide + high)

    usual = [(240, 432), (360, 640), (480, 854), (540, 960), (720, 1280), (1080, 1920), (360, 480), (480, 480)]
    return min(usual, key=distance)


if __name__ == "__main__":
    main()
