"""What a larger vocabulary costs, what candidates save and change, and what new words cost on the way.

    python benchmarks/scaling.py --video video.mp4
    python benchmarks/scaling.py --video video.mp4 --backend openvino --precision bf16 --json scaling.json

Words are the bundle's own, then VSPW's, then ImageNet's classes, real nouns all of them. For every number of words and
of candidates (``--top-classes``): milliseconds a frame, and the share of pixels that keep the label that the whole list
gives them. All rows take turns frame by frame, so that a slow moment of the machine hits all of them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
from latency import machine, make_frames
from tqdm import tqdm

from ov2vss_runtime.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.segmenter import Segmenter
from ov2vss_runtime.sources import open_source
from ov2vss_runtime.stream import StreamOptions

COUNTS = (20, 124, 500, 1200)
CANDIDATES = (0, 64, 32, 16)
"""0: none, the whole list."""
NEW_WORDS = 20


def word_list(own: list[str], count: int) -> list[str]:
    """``count`` distinct nouns, the bundle's own first."""
    from timm.data import ImageNetInfo

    from ov2vss.data.folder import VSPW_CLASSES
    from ov2vss_runtime.vocabulary import Vocabulary

    info = ImageNetInfo("imagenet-12k")
    imagenet = (info.index_to_description(k).split(",")[0] for k in range(info.num_classes()))
    vspw = (name.replace("_", " ") for name in Vocabulary.from_file(VSPW_CLASSES).names)
    words: dict[str, None] = dict.fromkeys(word.casefold() for word in own)
    for word in (*vspw, *imagenet):
        if len(words) == count:
            break
        words.setdefault(word.strip().casefold())
    return list(words)[:count]


@click.command(context_settings=CONTEXT)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option(
    "--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: physical cores]."
)
@click.option("--video", default=None, help="What to look at [default: generated pictures].")
@click.option("--frames", default=30, show_default=True, type=click.IntRange(3))
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(
    bundle: str,
    backend: str,
    precision: str,
    threads: int | None,
    video: str | None,
    frames: int,
    json_file: Path | None,
) -> None:
    """Print the cost of vocabularies of several sizes, with and without candidates."""
    segmenter = Segmenter.load(bundle, backend, precision, threads)
    pictures = (
        [f.rgb for f, _ in zip(open_source(video), range(frames), strict=False)] if video else make_frames((540, 960))
    )
    lists = {n: word_list(segmenter.bundle.default_vocabulary.names, n) for n in COUNTS}
    rows = [(n, k) for n in COUNTS for k in CANDIDATES if k < n]
    streams = {
        (n, k): segmenter.stream(None, lists[n], options=StreamOptions(top_classes=k), distant="first") for n, k in rows
    }
    seconds: dict[tuple[int, int], list[float]] = {row: [] for row in rows}
    agreement: dict[tuple[int, int], list[float]] = {row: [] for row in rows}
    for index in tqdm(range(frames), desc="scaling", unit="frame", disable=None, leave=False):
        whole = {}
        for n, k in rows:
            began = time.perf_counter()
            result = streams[n, k].step(pictures[index % len(pictures)])
            if index > 1:  # the first frames measure the size of chunks and warm up
                seconds[n, k].append(time.perf_counter() - began)
            whole.setdefault(n, result.labels)
            agreement[n, k].append(float((result.labels == whole[n]).mean()))

    where, manifest = machine(), segmenter.bundle.manifest
    height, width = segmenter.engine.size
    click.echo(
        f"{manifest.name}, {backend} {precision}, {height}x{width}, {segmenter.threads} threads, {frames} frames, "
        f"{where['processor']}, revision {where['revision']}, {where['date']}"
    )
    click.echo("| words | candidates | median ms | p90 ms | against 124 words | same label |")
    click.echo("|---|---|---|---|---|---|")
    base, record = float(np.median(seconds[124, 0])), []
    for n, k in rows:
        middle, slow = (1000 * float(np.percentile(seconds[n, k], p)) for p in (50, 90))
        same = float(np.mean(agreement[n, k]))
        record.append({"words": n, "candidates": k, "median_ms": middle, "p90_ms": slow, "same_label": same})
        click.echo(f"| {n} | {k or 'all'} | {middle:.1f} | {slow:.1f} | {middle / base / 1000:.2f} | {same:.4f} |")
    changes = []
    stream = streams[rows[0]]
    for turn in range(6):
        words = [f"{word} {turn}" for word in lists[500][100 : 100 + NEW_WORDS]]
        began = time.perf_counter()
        stream.set_vocabulary(words)
        changes.append(1000 * (time.perf_counter() - began))
    click.echo(
        f"{NEW_WORDS} new words on the way: median {np.median(changes[1:]):.0f} ms, slowest {max(changes[1:]):.0f} ms"
    )
    if json_file is not None:
        whole_record = {"bundle": manifest.name, "backend": backend, "precision": precision, "rows": record}
        whole_record |= {"new_words_ms": changes[1:], "threads": segmenter.threads, "machine": where}
        json_file.write_text(json.dumps(whole_record, indent=1) + "\n")


if __name__ == "__main__":
    main()
