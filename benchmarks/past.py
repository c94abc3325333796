"""What training on the past is worth: each arm and a control start from one checkpoint and train equally long.

    python benchmarks/past.py --init models/street-lite --data ../shared/data/camvid \
        --film ../shared/data/wide/davis --film ../shared/data/video/solidWhiteRight.mp4 \
        --watch ../shared/data/video/0016E5_15hz.mp4 --out runs/past --minutes 60

Arms (``--arm``, again for more; all by default):

control  clips of the data and clips made of its stills, nothing else
a        and a loss between neighbouring frames of film without labels
b        and targets that are hard to see, with clear frames before them
c        and a memory of where things were (``model.local_memory``)
bc       b and c

All train the same number of iterations from the same draws; ``--minutes`` is the time of the control, whose speed is
measured first. Prints, per arm and seed: mIoU of the stream
and of the same weights frame by frame on the labelled film (``--split``, every frame labelled), flips a second on
``--watch`` without smoothing, and boundary F; changes are against the control of the same seed. Arms that are done are
not trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import machine

from ov2vss import checkpoint
from ov2vss.data import open_videos
from ov2vss.data.source import VideoSet
from ov2vss.evaluate.evaluate import Labels, evaluate, make_protocol, predict_with
from ov2vss.evaluate.temporal import TemporalTally, watched
from ov2vss.presets import PRESETS, TrainConfig, configure
from ov2vss.torch_engine import PerFrameEngine, TorchEngine
from ov2vss.train.loop import Trainer
from ov2vss.train.memory import keep_freed_memory
from ov2vss.train.start import start_from
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.stream.stream import Stream
from ov2vss_runtime.video.open_source import open_source

ARMS: dict[str, list[str]] = {
    "control": [],
    "a": ["consistency=1.0"],
    "b": ["degraded_targets=0.5"],
    "c": ["model.local_memory=true"],
    "bc": ["degraded_targets=0.5", "model.local_memory=true"],
}
"""Settings that an arm has beyond the control's."""
TRIED = 12
"""Iterations of the control that its speed is measured on, the first two of which do not count."""


def settings(
    init: str, data: str, arm: str, iterations: int, seed: int, film: tuple[str, ...], more: tuple[str, ...]
) -> TrainConfig:
    """The settings of an arm: those of the checkpoint's preset, but that every iteration is of clips, and gradients go
    through references."""
    own = [f"iterations={iterations}", "per_frame_iterations=0", "reference_grad=true", "moving=0.5", f"seed={seed}"]
    own += [f"warmup={min(50, max(1, iterations // 10))}", f"save_every={min(iterations, 250)}", *more, *ARMS[arm]]
    if "consistency=1.0" in own:
        own.append(f"film={','.join(film)}")
    preset = checkpoint.find(init).run.train.preset
    return configure(start_from(init, preset if preset in PRESETS else None), own, data=data)


def iterations_in(minutes: float, config: TrainConfig, out: Path) -> int:
    """Iterations of the control in so many minutes, from a few of them."""
    trainer = Trainer(config.model_copy(update={"iterations": TRIED, "save_every": TRIED}), out)
    marks: list[float] = []
    iterate = trainer._iterate

    def marked(*args: Any) -> float:
        marks.append(time.perf_counter())
        return iterate(*args)

    trainer._iterate = marked  # type: ignore[method-assign]
    trainer.fit()
    return max(1, int(60 * minutes / float(np.median(np.diff(marks)[2:]))))


def streamed(engine: Any, config: TrainConfig, videos: VideoSet, rate: float) -> dict[str, Any]:
    """Scores of a model on labelled film at its own gap; boundary F and edge lag beside mIoU."""
    protocol = make_protocol(videos, "all", None, videos.unseen)
    gap, prompts = config.model.gap, config.model.prompts
    embeddings = Stream(engine, protocol.vocabulary, prompts, gap).embeddings

    def make_stream() -> Stream:
        return Stream(engine, protocol.vocabulary, prompts, gap, "farthest", embeddings=embeddings)

    moving = TemporalTally([videos.classes.names[k] for k in protocol.classes], rate)
    scores = evaluate(videos, protocol, watched(predict_with(make_stream), protocol, videos, moving), progress=True)
    return scores | moving.scores()


def flips(engine: Any, config: TrainConfig, words: Any, source: str, frames: int, rate: float) -> float:
    """Flips a second on a film without labels, streamed without smoothing."""
    stream = Stream(engine, words, config.model.prompts, config.model.gap, "first")
    tally, last = TemporalTally(list(stream.names), rate), None
    for frame in islice(open_source(source), frames):
        labels: Labels = stream.step(frame.rgb, frame.time).labels
        if last is not None:
            tally.pair((frame.rgb, last[0]), (labels, last[1]))
        last = (frame.rgb, labels)
    found = tally.scores()["flips_per_second"]
    assert isinstance(found, float)
    return found


def measured(run: Path, videos: VideoSet, watch: str, rate: float, frames: int) -> dict[str, Any]:
    """The figures of a trained arm."""
    found = checkpoint.find(run)
    model, encoder, config = found.build(), found.text_encoder(), found.run.train
    stream = TorchEngine(model, config.size, encoder)
    row: dict[str, Any] = {}
    for name, engine in (("stream", stream), ("per frame", PerFrameEngine(model, config.size, encoder))):
        scores = streamed(engine, config, videos, rate)
        row[name] = {k: scores[k] for k in ("miou", "vc8", "boundary_f", "edge_lag", "flips_per_second", "per_class")}
    return row | {"flips": flips(stream, config, videos.classes, watch, frames, rate)}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| arm | seed | minutes | mIoU stream | per frame | stream minus | flips a second | change | boundary F |"
    yield "|" + "---|" * 9
    for row in rows:
        base = next((r for r in rows if r["arm"] == "control" and r["seed"] == row["seed"]), None)
        miou = 100 * row["stream"]["miou"], 100 * row["per frame"]["miou"]
        edge, change, edges = 100 * row["stream"]["boundary_f"], "", ""
        if base is not None and base is not row:
            change = f"{100 * (row['flips'] / base['flips'] - 1):+.1f} %" if base["flips"] else ""
            edges = f" ({edge - 100 * base['stream']['boundary_f']:+.2f})"
        cells = [row["arm"], str(row["seed"]), f"{row['seconds'] / 60:.1f}", f"{miou[0]:.2f}", f"{miou[1]:.2f}"]
        cells += [f"{miou[0] - miou[1]:+.2f}", f"{row['flips']:.3f}", change, f"{edge:.2f}{edges}"]
        yield f"| {' | '.join(cells)} |"


@click.command(context_settings=CONTEXT)
@click.option("--init", default="models/street-lite", show_default=True, help="Checkpoint that all arms start from.")
@click.option("--data", required=True, help="Labelled clips to train on and, in --split, to measure on.")
@click.option("--split", default="val", show_default=True)
@click.option("--film", "films", multiple=True, help="Film without labels for arm a; again for more.")
@click.option("--watch", required=True, help="Film whose flips are counted.")
@click.option("--frames", default=300, show_default=True, type=click.IntRange(2), help="Of --watch at most.")
@click.option("--rate", default=15.0, show_default=True, help="Frames a second of --watch and of --split.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), help="Only these [default: all].")
@click.option("--seed", "seeds", multiple=True, default=(0, 1), show_default=True, type=click.IntRange(0))
@click.option("--iterations", default=None, type=click.IntRange(1), help="Of every arm.")
@click.option("--minutes", default=None, type=float, help="Of the control; every arm gets its iterations.")
@click.option("--set", "more", multiple=True, metavar="KEY=VALUE", help="Settings of all arms.")
@click.option("--json", "json_file", default=None, type=click.Path(path_type=Path))
@program
def main(
    init: str,
    data: str,
    split: str,
    films: tuple[str, ...],
    watch: str,
    frames: int,
    rate: float,
    out: Path,
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    iterations: int | None,
    minutes: float | None,
    more: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Train arms and their control from one checkpoint, and print what each is worth."""
    if (iterations is None) == (minutes is None):
        raise click.UsageError("give either --iterations or --minutes")
    arms = arms or tuple(ARMS)
    if "a" in arms and not films:
        raise click.UsageError("arm a needs --film")
    videos = open_videos(data, split)
    keep_freed_memory()
    budget = out / "budget.json"
    if iterations is None:
        assert minutes is not None
        kept = json.loads(budget.read_text()) if budget.is_file() else {}
        iterations = kept.get(f"{minutes:g}")
        if iterations is None:
            iterations = iterations_in(minutes, settings(init, data, "control", 100, 0, films, more), out / "speed")
            budget.write_text(json.dumps({f"{minutes:g}": iterations}))
    click.echo(f"{iterations} iterations an arm")
    rows = []
    for seed in seeds:
        for arm in arms:
            run = out / f"{arm}-{seed}-{iterations}"
            scores = run.with_suffix(".json")
            if not scores.is_file():
                config = settings(init, data, arm, iterations, seed, films, more)
                trainer = Trainer(config, run, resume=any(run.glob("step-????????")))
                began = time.perf_counter()
                trainer.fit()
                row = {"arm": arm, "seed": seed, "iterations": iterations, "seconds": time.perf_counter() - began}
                row |= measured(run, videos, watch, rate, frames)
                scores.write_text(json.dumps(row, indent=1) + "\n")
            rows.append(json.loads(scores.read_text()))
    for line in table(rows):
        click.echo(line)
    if json_file is not None:
        json_file.write_text(json.dumps({"script": "past", "rows": rows, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
