"""Time and memory of training-free bundles, in turn in one process; the first one named is what the others are held to.

    ov2vss-export --clip ViT-B-16/openai --clip-weights random --dense value --out b16-value
    ov2vss-export --clip ViT-B-16/openai --clip-weights random --dense neighbour --out b16-neighbour
    python benchmarks/clip_speed.py b16-value b16-neighbour --words 20,200 --backend onnxruntime,openvino

``BUNDLE=336:112`` runs a bundle in windows (``--tiles``). Random weights are as fast as trained ones. Prints a line for
each bundle, engine and number of words: milliseconds a frame (median), processor time a frame (all threads, median),
the part of the frame that is the backbone, the ratio of processor times to the first bundle's, and the largest memory
of the process so far. Processor time is the figure to compare where other programs run.
"""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path

import click
import numpy as np

from ov2vss_runtime import Segmenter, StreamOptions
from ov2vss_runtime.bundle.rollout import synthetic_frames
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.stream.tiles import parse_tiles


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--words", default="20,200", show_default=True, help="Numbers of words.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Engines, separated by commas.")
@click.option("--precision", default="fp32", show_default=True)
@click.option("--threads", default=None, type=click.IntRange(1), help="Processor threads [default: physical cores].")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="Frames of each that count.")
def main(bundles: tuple[str, ...], words: str, backend: str, precision: str, threads: int | None, rounds: int) -> None:
    """Time bundles in turn: frame by frame, one after the other, so that a slow moment hits all of them."""
    print(
        "| bundle | engine | words | ms a frame | CPU ms | backbone | ratio | MB |\n|---|---|---|---|---|---|---|---|"
    )
    named = [name.partition("=") for name in bundles]
    tiles = [parse_tiles(text) if text else None for _, _, text in named]
    for engine in backend.split(","):
        loaded = [Segmenter.load(name, engine, precision, threads) for name, _, _ in named]
        for count in (int(n) for n in words.split(",")):
            names = Vocabulary(tuple((f"word {n}",) for n in range(count)))
            streams, frames = [], []
            for segmenter, windows in zip(loaded, tiles, strict=True):
                rows = np.random.RandomState(0).standard_normal((count, segmenter.bundle.manifest.vocabulary.embed_dim))
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                options = StreamOptions(tiles=windows)
                streams.append(segmenter.stream(None, names, embeddings=rows.astype(np.float32), options=options))
                size = segmenter.size if windows is None else (windows.short, round(windows.short * 16 / 9))
                frames.append(synthetic_frames(size, 4))
            seconds: list[list[float]] = [[] for _ in named]
            used: list[list[float]] = [[] for _ in named]
            for number in range(rounds + 2):
                for index, stream in enumerate(streams):
                    began, before = time.perf_counter(), time.process_time()
                    stream.step(frames[index][number % 4])
                    if number >= 2:
                        seconds[index].append(1000 * (time.perf_counter() - began))
                        used[index].append(1000 * (time.process_time() - before))
            for index, bundle in enumerate(bundles):
                backbone = streams[index].stages.per_frame_ms(rounds + 2)["backbone"]
                wall, processor = statistics.median(seconds[index]), statistics.median(used[index])
                ratio = statistics.median(a / max(b, 1e-9) for a, b in zip(used[index], used[0], strict=True))
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                row = f"| {Path(bundle).name} | {engine} {precision} | {count} | {wall:.1f} | {processor:.1f} "
                print(f"{row}| {backbone:.1f} | {ratio:.3f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
