"""What grows, and what does not: cost against words, frame size, clip length and parallel streams; memory.

    python benchmarks/scaling.py --video video.mp4
    python benchmarks/scaling.py --video video.mp4 --what all --json scaling.json

words       words with and without candidates (``--top-classes``), and new words on the way; the words are the bundle's
            own, then VSPW's, then ImageNet's classes, real nouns all of them
size        the bundle's checkpoint exported at several frame sizes
references  lite with n references and random weights: the stream beside the authors' scheme
streams     several streams at once over one loaded bundle, a thread each
memory      resident memory against the length of the stream (``memory.py`` watches longer ones and plots them)

The rows of a table take turns frame by frame, so that a slow moment of the machine hits all of them. Exports are kept
in the cache folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import machine
from memory import resident_mb
from subjects import exported, own_checkpoint, require_checkpoint
from tqdm import tqdm
from workers import drifting, word_list

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.engines.bundle_engine import cache_folder
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import StreamOptions
from ov2vss_runtime.video.open_source import open_source

COUNTS = (20, 124, 500, 1200)
CANDIDATES = (0, 64, 32, 16)
"""0: none, the whole list."""
NEW_WORDS = 20
SIZES = ((192, 352), (256, 480), (352, 640), (480, 864), (704, 1280))
REFERENCES = (1, 2, 3, 5)
REFERENCE_SIZE = (352, 640)
STREAMS = (1, 2, 4, 8)
LENGTHS = (50, 100, 200, 400, 800)
TOPICS = ("words", "size", "references", "streams", "memory")
WARM_UP = 2


@dataclass(frozen=True)
class Setup:
    """What all topics share."""

    bundle: str
    backend: str
    precision: str
    threads: int | None
    pictures: list[np.ndarray]
    frames: int
    ckpt: Path | None
    cache: Path

    def load(self, bundle: str | Path | None = None) -> Segmenter:
        return Segmenter.load(bundle or self.bundle, self.backend, self.precision, self.threads)

    def turns(
        self, steps: dict[Any, Callable], note: str, look: Callable[[dict[Any, Any]], None] | None = None
    ) -> dict[Any, dict[str, float]]:
        """Median and 90th percentile in ms of each step function over the pictures; ``look`` sees every frame's
        results."""
        found: dict[Any, list[float]] = {key: [] for key in steps}
        for index in tqdm(range(self.frames + WARM_UP), desc=note, unit="frame", disable=None, leave=False):
            picture, results = self.pictures[index % len(self.pictures)], {}
            for key, step in steps.items():
                began = time.perf_counter()
                results[key] = step(picture)
                if index >= WARM_UP:
                    found[key].append(1000 * (time.perf_counter() - began))
            if look is not None:
                look(results)
        return {k: {"median_ms": float(np.median(v)), "p90_ms": float(np.percentile(v, 90))} for k, v in found.items()}


def scale_words(setup: Setup) -> dict[str, Any]:
    """Cost of vocabularies of several sizes, what candidates save and change, and what new words cost."""
    segmenter = setup.load()
    lists = {n: word_list(segmenter.bundle.default_vocabulary.names, n) for n in COUNTS}
    rows = [(n, k) for n in COUNTS for k in CANDIDATES if k < n]
    streams = {
        (n, k): segmenter.stream(None, lists[n], options=StreamOptions(top_classes=k), distant="first") for n, k in rows
    }
    agreement: dict[tuple[int, int], list[float]] = {row: [] for row in rows}

    def look(results: dict[Any, Any]) -> None:
        for n, k in rows:
            agreement[n, k].append(float((results[n, k].labels == results[n, 0].labels).mean()))

    times = setup.turns({row: stream.step for row, stream in streams.items()}, "words", look)
    base, records = times[124, 0]["median_ms"], []
    for (n, k), ms in times.items():
        record = {"words": n, "candidates": k or "all"} | ms | {"of_124_words": ms["median_ms"] / base}
        records.append(record | {"same_label": float(np.mean(agreement[n, k]))})
    changes, stream = [], streams[rows[0]]
    for turn in range(6):
        fresh = [f"{word} {turn}" for word in lists[500].names[100 : 100 + NEW_WORDS]]
        began = time.perf_counter()
        stream.set_vocabulary(fresh)
        changes.append(1000 * (time.perf_counter() - began))
    return {"rows": records, "new_words": NEW_WORDS, "new_words_ms": changes[1:]}


def scale_size(setup: Setup) -> dict[str, Any]:
    """Cost of frame sizes; the network's share of it goes with the area."""
    stored = ("fp32",) if setup.precision in ("fp32", "bf16") else ("fp32", setup.precision)
    streams = {size: setup.load(exported(setup.ckpt, size, stored, setup.cache)).stream() for size in SIZES}
    steps = {size: stream.step for size, stream in streams.items()}
    words = {size: len(stream.vocabulary) for size, stream in streams.items()}
    rows = [
        {"size": f"{h}x{w}", "pixels": h * w, "words": words[h, w]} | ms
        for (h, w), ms in setup.turns(steps, "size").items()
    ]
    return {"rows": [r | {"ns_a_pixel": 1e6 * r["median_ms"] / r["pixels"]} for r in rows]}


def scale_references(setup: Setup) -> dict[str, Any]:
    """Cost of the length of a clip. A stream has a step more per reference; the authors' scheme a backbone pass."""
    from reference import AuthorsScheme, write_graphs
    from untrained import write_untrained

    steps: dict[Any, Callable] = {}
    for n in REFERENCES:
        run = write_untrained("lite", setup.cache / f"lite-{n}-untrained", overrides=[f"model.references={n}"])
        segmenter = setup.load(exported(run, REFERENCE_SIZE, ("fp32",), setup.cache))
        stream = segmenter.stream()
        steps[n, "stream"] = stream.step
        if setup.backend == "onnxruntime" and setup.precision == "fp32":
            folder = write_graphs(str(run), REFERENCE_SIZE, setup.cache)
            steps[n, "authors' scheme"] = AuthorsScheme(segmenter.engine, folder, stream.embeddings).step
    times = setup.turns(steps, "references")
    return {"rows": [{"references": n, "scheme": scheme} | ms for (n, scheme), ms in times.items()]}


def scale_streams(setup: Setup) -> dict[str, Any]:
    """Frames a second of several streams at once, and how long each waits for a frame."""
    segmenter = setup.load()
    segmenter.stream().step(setup.pictures[0])
    rows = []
    for count in STREAMS:
        streams = [segmenter.stream() for _ in range(count)]
        each = max(4, setup.frames // count)

        def run(stream: Any, each: int = each) -> list[float]:
            found = []
            for index in range(each):
                began = time.perf_counter()
                stream.step(setup.pictures[index % len(setup.pictures)])
                found.append(1000 * (time.perf_counter() - began))
            return found

        began = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            waits = np.concatenate(list(pool.map(run, streams)))
        seconds = time.perf_counter() - began
        middle, slow = (float(np.percentile(waits, p)) for p in (50, 90))
        row = {"streams": count, "fps_together": count * each / seconds, "median_ms": middle, "p90_ms": slow}
        rows.append(row | {"resident_mb": resident_mb()})
    return {"rows": rows}


def scale_memory(setup: Setup) -> dict[str, Any]:
    """Resident memory of one stream after more and more frames."""
    stream, rows, done = setup.load().stream(distant="reservoir"), [], 0
    for length in tqdm(LENGTHS, desc="memory", unit="length", disable=None, leave=False):
        while done < length:
            stream.step(setup.pictures[done % len(setup.pictures)])
            done += 1
        rows.append({"frames": length, "resident_mb": resident_mb()})
    return {"rows": rows}


RUN = {
    "words": scale_words,
    "size": scale_size,
    "references": scale_references,
    "streams": scale_streams,
    "memory": scale_memory,
}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| " + " | ".join(name.replace("_", " ") for name in rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = []
        for name, value in row.items():
            digits = {"same_label": 4, "of_124_words": 2, "ns_a_pixel": 0}.get(name, 1)
            cells.append(f"{value:.{digits}f}" if isinstance(value, float) else str(value))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


@click.command(context_settings=CONTEXT)
@click.option(
    "--what", "topics", multiple=True, type=click.Choice([*TOPICS, "all"]), help="Again for more [default: words]."
)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option(
    "--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: physical cores]."
)
@click.option("--ckpt", default=None, type=click.Path(path_type=Path), help="For 'size' [default: models/BUNDLE].")
@click.option("--video", default=None, help="What to look at [default: generated pictures].")
@click.option("--frames", default=30, show_default=True, type=click.IntRange(3), help="Frames that count.")
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(
    topics: tuple[str, ...],
    bundle: str,
    backend: str,
    precision: str,
    threads: int | None,
    ckpt: Path | None,
    video: str | None,
    frames: int,
    json_file: Path | None,
) -> None:
    """Print how cost and memory grow."""
    wanted = TOPICS if "all" in topics else tuple(dict.fromkeys(topics)) or ("words",)
    cache = cache_folder("benchmarks")
    cache.mkdir(parents=True, exist_ok=True)
    pictures = (
        [f.rgb for f, _ in zip(open_source(video), range(frames), strict=False)] if video else drifting((540, 960))
    )
    ckpt = require_checkpoint(Bundle.open(bundle), ckpt or own_checkpoint(bundle)) if "size" in wanted else None
    setup = Setup(bundle, backend, precision, threads, pictures, frames, ckpt, cache)
    segmenter, where, results = setup.load(), machine(), {}
    height, width = segmenter.engine.size
    click.echo(
        f"{segmenter.bundle.manifest.name}, {backend} {precision}, {height}x{width}, {segmenter.threads} threads, "
        f"{frames} frames, {where['processor']}, revision {where['revision']}, {where['date']}"
    )
    for topic in wanted:
        results[topic] = RUN[topic](setup)
        click.echo(f"{topic}:")
        for line in table(results[topic]["rows"]):
            click.echo(line)
        if topic == "words":
            changes = results[topic]["new_words_ms"]
            click.echo(
                f"{NEW_WORDS} new words on the way: median {np.median(changes):.0f} ms, slowest {max(changes):.0f} ms"
            )
    if json_file is not None:
        record = {"script": "scaling", "bundle": segmenter.bundle.manifest.name, "backend": backend}
        record |= {"precision": precision, "size": [height, width], "threads": segmenter.threads, "frames": frames}
        record |= {"video": Path(video).name if video else "generated", "topics": results, "machine": where}
        json_file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
