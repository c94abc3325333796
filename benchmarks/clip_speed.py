"""Time and memory of training-free bundles, in turn in one process; the first one named is what the others are held to.

    ov2vss-export --clip ViT-B-16/openai --clip-weights random --dense value --out b16-value
    ov2vss-export --clip ViT-B-16/openai --clip-weights random --dense neighbour --out b16-neighbour
    python benchmarks/clip_speed.py b16-value b16-neighbour --words 20,200 --backend onnxruntime,openvino

Random weights are as fast as trained ones. Prints a line for each bundle, engine and number of words: milliseconds a
frame (median), the part of it that is the backbone, its ratio to the first bundle, and the largest memory of the
process so far.
"""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path

import click
import numpy as np

from ov2vss_runtime import Segmenter
from ov2vss_runtime.bundle.verify import synthetic_frames
from ov2vss_runtime.bundle.vocabulary import Vocabulary


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--words", default="20,200", show_default=True, help="Numbers of words.")
@click.option("--backend", default="onnxruntime", show_default=True, help="Engines, separated by commas.")
@click.option("--precision", default="fp32", show_default=True)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="Frames of each that count.")
def main(bundles: tuple[Path, ...], words: str, backend: str, precision: str, rounds: int) -> None:
    """Time bundles in turn: frame by frame, one after the other, so that a slow moment hits all of them."""
    print("| bundle | engine | words | ms a frame | backbone | ratio | MB |\n|---|---|---|---|---|---|---|")
    for engine in backend.split(","):
        loaded = [Segmenter.load(bundle, engine, precision) for bundle in bundles]
        for count in (int(n) for n in words.split(",")):
            names = Vocabulary(tuple((f"word {n}",) for n in range(count)))
            streams = []
            for segmenter in loaded:
                rows = np.random.RandomState(0).standard_normal((count, segmenter.bundle.manifest.vocabulary.embed_dim))
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                streams.append(segmenter.stream(None, names, embeddings=rows.astype(np.float32)))
            frames = [synthetic_frames(segmenter.size, 4) for segmenter in loaded]
            seconds: list[list[float]] = [[] for _ in bundles]
            before = [0.0] * len(bundles)
            for number in range(rounds + 2):
                for index, stream in enumerate(streams):
                    began = time.perf_counter()
                    stream.step(frames[index][number % 4])
                    if number >= 2:
                        seconds[index].append(1000 * (time.perf_counter() - began))
            for index, bundle in enumerate(bundles):
                before[index] = streams[index].stages.per_frame_ms(rounds + 2)["backbone"]
                median = statistics.median(seconds[index])
                ratio = statistics.median(a / b for a, b in zip(seconds[index], seconds[0], strict=True))
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                row = f"| {bundle.name} | {engine} {precision} | {count} | {median:.1f} | {before[index]:.1f} "
                print(f"{row}| {ratio:.3f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
