"""What every engine and precision costs in accuracy, and what it gains in speed: one row each, torch first.

    python benchmarks/parity.py --data camvid
    python benchmarks/parity.py --data camvid --split test --split val --json parity.json
    python benchmarks/parity.py --bundle my-bundle --ckpt runs/mine --data my-data
    python benchmarks/parity.py --data camvid --split val --temporal --rate 15

All rows stream the same labelled videos (any layout of ov2vss-eval) with the data set's own class names. "agreement" is
the share of pixels with torch's label, over all frames and in the worst one; mIoU, fwIoU, VC8 and VC16 are against the
labels (VC only where every frame has one). "ms" is the median from a decoded frame to its label map. --temporal adds
how labels behave in time (docs/temporal.md), torch's own beside them: an engine that flickers more than torch does
shows here and in no other column.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import machine
from subjects import combinations, installed, own_checkpoint, require_checkpoint

from ov2vss import checkpoint
from ov2vss.data import open_videos
from ov2vss.data.source import VideoSet
from ov2vss.evaluate.evaluate import Labels, Protocol, evaluate, make_protocol, predict_with
from ov2vss.evaluate.temporal import TemporalTally, watched
from ov2vss.torch_engine import TorchEngine
from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.console import CONTEXT, Number, program
from ov2vss_runtime.engines.backends import BACKENDS
from ov2vss_runtime.processors import available_threads
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import Stream

SCORES = ("miou", "fwiou", "vc8", "vc16")
IN_TIME = {"along the flow": "agreement_in_time", "flips a second": "flips_per_second"}
IN_TIME |= {"boundary F": "boundary_f", "edge lag": "edge_lag"}
"""Columns of --temporal."""
WARM_UP = 3
"""Frames whose time does not count."""


class Timed:
    """A stream that notes how long each step takes."""

    def __init__(self, stream: Stream, seconds: list[float]) -> None:
        self.stream, self.seconds = stream, seconds
        self.set_last = stream.set_last

    def step(self, frame: np.ndarray, at: float) -> Any:
        began = time.perf_counter()
        result = self.stream.step(frame, at)
        self.seconds.append(time.perf_counter() - began)
        return result


def row(
    title: str,
    make_stream: Callable[[], Stream],
    videos: VideoSet,
    protocol: Protocol,
    expected: dict | None,
    rate: float | None = None,
) -> tuple[dict[str, Any], dict]:
    """Scores, speed, agreement with ``expected`` label maps (None: this row is the reference); and the label maps.

    With a ``rate`` of frames a second also the scores in time.
    """
    seconds: list[float] = []
    labels: dict[tuple[int, int], Labels] = {}
    agreement: list[float] = []
    predict = predict_with(lambda: Timed(make_stream(), seconds))  # type: ignore[arg-type,return-value]

    def compared(videos: VideoSet, video: int) -> Iterator[Labels | None]:
        for index, found in enumerate(predict(videos, video)):
            if found is not None and expected is None:
                labels[video, index] = found
            elif found is not None and (video, index) in expected:
                agreement.append(float((found == expected[video, index]).mean()))
            yield found

    names = [videos.classes.names[k] for k in protocol.classes]
    moving = None if rate is None else TemporalTally(names, rate)
    seen = compared if moving is None else watched(compared, protocol, videos, moving)
    scores = evaluate(videos, protocol, seen, progress=True)
    middle = 1000 * float(np.median(seconds[WARM_UP:] or seconds))
    record = {"title": title, "frames": len(seconds), "ms": middle, "fps": 1000 / middle}
    record |= {name: scores[name] for name in SCORES}
    if agreement:
        record |= {"agreement": float(np.mean(agreement)), "worst_agreement": min(agreement)}
    if moving is not None:
        in_time = moving.scores()
        record |= {"agreement_in_time": in_time.pop("agreement")} | in_time
    return record, labels


def table(records: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    temporal = list(IN_TIME) if records and "edge_lag" in records[0] else []
    head = ["configuration", "agreement", "worst frame", "mIoU", "fwIoU", "VC8", "VC16", *temporal, "ms", "fps"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for r in records:
        cells = [f"{r[k]:.5f}" if r.get(k) is not None else "" for k in ("agreement", "worst_agreement")]
        cells += [f"{r[k]:.4f}" if r[k] is not None else "" for k in (*SCORES, *(IN_TIME[c] for c in temporal))]
        lines.append(f"| {r['title']} | " + " | ".join(cells) + f" | {r['ms']:.1f} | {r['fps']:.1f} |")
    return lines


@click.command(context_settings=CONTEXT)
@click.option("--data", required=True, help="Labelled videos: a folder in the VSPW layout, or 'shapes'.")
@click.option("--split", "splits", multiple=True, default=("test",), show_default=True, help="Again for more.")
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option(
    "--ckpt", default=None, type=click.Path(path_type=Path), help="What it was exported from [default: models/BUNDLE]."
)
@click.option(
    "--backend", "backends", multiple=True, type=click.Choice(list(BACKENDS)), help="Only these [default: all]."
)
@click.option("--precision", "precisions", multiple=True, help="Only these [default: all].")
@click.option("--gap", default=None, type=click.IntRange(1), help="Distance of references [default: the bundle's].")
@click.option(
    "--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: physical cores]."
)
@click.option("--temporal", is_flag=True, help="Also score agreement along the flow, flips and edges, of torch too.")
@click.option(
    "--rate", default=None, type=Number(min=0, min_open=True), help="With --temporal: frames a second [default: 25]."
)
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(
    data: str,
    splits: tuple[str, ...],
    bundle: str,
    ckpt: Path | None,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    gap: int | None,
    threads: int | None,
    temporal: bool,
    rate: float | None,
    json_file: Path | None,
) -> None:
    """Print agreement with torch, accuracy and speed of every configuration of a bundle."""
    import torch

    if rate is not None and not temporal:
        raise click.UsageError("--rate needs --temporal")
    rate = (rate or 25.0) if temporal else None
    opened, threads = Bundle.open(bundle), threads or available_threads()
    found = checkpoint.find(require_checkpoint(opened, ckpt or own_checkpoint(bundle)))
    torch.set_num_threads(threads)
    model, size = found.build(), tuple(opened.manifest.preprocess.size)
    engine = TorchEngine(model, size, found.text_encoder())
    gap, templates = gap or opened.manifest.gap, opened.manifest.vocabulary.templates
    # fp16 on a processor is slow, but its accuracy is what this script is about.
    pairs = combinations(opened, backends or installed(), precisions or ("fp32", "bf16", "int8", "fp16"))
    where, results = machine(), {}
    click.echo(
        f"{opened.manifest.name}, {size[0]}x{size[1]}, gap {gap}, {threads} threads, {where['processor']}, "
        f"revision {where['revision']}, {where['date']}"
    )
    for split in splits:
        videos = open_videos(data, split)
        protocol = make_protocol(videos, "all", None, videos.unseen)
        own = Stream(engine, protocol.vocabulary, templates, gap).embeddings

        def torch_stream(words: Any = protocol.vocabulary, embeddings: Any = own) -> Stream:
            return Stream(engine, words, templates, gap, "farthest", threads, embeddings=embeddings)

        record, expected = row("torch eager fp32", torch_stream, videos, protocol, None, rate)
        records = [record]
        for backend, precision in pairs:
            segmenter = Segmenter.load(opened, backend, precision, threads)
            embeddings = segmenter.stream(None, protocol.vocabulary).embeddings

            def stream(
                segmenter: Segmenter = segmenter, words: Any = protocol.vocabulary, embeddings: Any = embeddings
            ) -> Stream:
                return segmenter.stream(None, words, gap, "farthest", embeddings=embeddings)

            records.append(row(f"{backend} {precision}", stream, videos, protocol, expected, rate)[0])
        results[split] = records
        click.echo(f"{Path(data).name}, {split}:")
        for line in table(records):
            click.echo(line)
    if json_file is not None:
        whole = {"script": "parity", "bundle": opened.manifest.name, "size": size, "gap": gap, "threads": threads}
        whole |= {"data": Path(data).name, "splits": results, "machine": where}
        json_file.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
