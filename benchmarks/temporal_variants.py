"""What a frame could take from the one before it, and how: every way beside the shipped one, on the same frames.

    python benchmarks/temporal_variants.py --data ../shared/data/camvid

The network runs once over the clip; what its decoder needs is kept, so that all ways share the same features. Of
every way several shares of the past are tried, and the one that is best on the first half of the clip (mIoU plus a
quarter of VC8, in points) is reported there, on the second half, and on all. "ms" is the median of what comes after the
features, flow included, less that of no past at all, on this machine in this process.

logits       moved along the flow and blended by the shipped rule: the runtime's own smoothing
features     ``dense`` and the guidance, moved along the same flow with the same trust, before the decoder
affinity     ``dense`` from places within four cells of the same place, by likeness; no flow
average      logits of the same place, without motion
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
from machine import machine
from temporal_runs import Frames, Maps, truth_of

from ov2vss.data import open_videos
from ov2vss.evaluate.metrics import Confusion, video_consistency
from ov2vss.evaluate.temporal import SHIFTS, agreement, boundary_f, edges, moved, peak
from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.engines.engine import FrameFeatures
from ov2vss_runtime.stream.flow import Motion, MotionEstimator, shrunk
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.propagation import Propagator, Smoothing, propagate
from ov2vss_runtime.stream.segmenter import Segmenter

RADIUS, LIKENESS = 4, 0.02
"""Of the affinity: cells around a place, and the temperature of the softmax over them."""
SHARES = {
    "none": (0.0,),
    "logits": (0.85,),
    "features": (0.5, 0.85),
    "affinity": (0.3, 0.5, 0.7),
    "average": (0.3, 0.5, 0.7),
}
"""Shares of the past that are tried; the shipped one is fixed."""
Plane = npt.NDArray[np.float32]


@dataclass
class Clip:
    """Frames as the network saw them, and what it gave for each.

    Attributes:
        frames: RGB ``[H, W, 3]`` at the network's size.
        features: per frame, what the decoder needs of it, by name.
        logits: ``[N, h, w]`` of every frame.
        size: (H, W) of the labels.
        embeddings: class embeddings ``[N, D]``.
    """

    segmenter: Segmenter
    frames: Frames
    features: list[dict[str, Plane]]
    logits: Maps
    size: tuple[int, int]
    embeddings: Plane
    threads: int

    def decode(self, features: dict[str, Plane]) -> Plane:
        """Logits of features, perhaps changed ones."""
        engine: Any = self.segmenter.engine
        given = engine.from_host(features)
        return engine.decode(FrameFeatures(None, given), given, self.embeddings)


def looked(segmenter: Segmenter, frames: Frames, words: Any, size: tuple[int, int], threads: int) -> Clip:
    """Run the network over a clip."""
    stream = segmenter.stream(None, words, None, "farthest")
    stream.set_last(frames[-1], float(len(frames) - 1))
    engine: Any = segmenter.engine
    features, logits = [], []
    for t, frame in enumerate(frames):
        found, guidance, _ = stream._advance(frame, float(t))
        features.append(engine.to_host(engine.given(engine.wiring.decoder, found, guidance)))
        logits.append(engine.decode(found, guidance, stream.embeddings).copy())
    small = [np.ascontiguousarray(resize_frame(f, engine.size)) for f in frames]
    return Clip(segmenter, small, features, logits, size, stream.embeddings, threads)


@dataclass
class Way:
    """One way over a clip: label maps, and seconds a frame."""

    maps: Maps = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def timed(labels: Iterator[Any]) -> Way:
    way = Way()
    while True:
        began = time.perf_counter()
        try:
            found = next(labels)
        except StopIteration:
            return way
        way.seconds.append(time.perf_counter() - began)
        way.maps.append(found)


def none(clip: Clip, _share: float) -> Iterator[Any]:
    for features in clip.features:
        yield label_map(clip.decode(features), clip.size, clip.threads)


def logits(clip: Clip, share: float) -> Iterator[Any]:
    past = Propagator(Smoothing(share=share), threads=clip.threads)
    for frame, features in zip(clip.frames, clip.features, strict=True):
        past.look(frame)
        yield past.blend(clip.decode(features).copy(), 0, clip.size)[1]


def average(clip: Clip, share: float) -> Iterator[Any]:
    last: Plane | None = None
    for features in clip.features:
        own = clip.decode(features).copy()
        if last is not None:
            own += np.float32(share) * (last - own)
        last = own
        yield label_map(own, clip.size, clip.threads)


def grid_of(motion: Motion, cells: tuple[int, int]) -> Motion:
    """A motion on another grid."""
    h, w = motion.trust.shape
    if (h, w) == cells:
        return motion
    scale = np.array([cells[1] / w, cells[0] / h], np.float32)
    if cells[0] <= h:
        flow, trust = shrunk(motion.flow, cells), shrunk(motion.trust, cells)
    else:
        flow, trust = (cv2.resize(p, cells[::-1], interpolation=cv2.INTER_LINEAR) for p in (motion.flow, motion.trust))
    return Motion(flow * scale, trust)


def features(clip: Clip, share: float) -> Iterator[Any]:
    """All maps that the decoder reads but the words' memory; ``dense`` stays of unit length."""
    estimate, rules = MotionEstimator(), Smoothing(share=share, lean=0.0)
    dense = clip.segmenter.engine.can.dense
    maps = [name for name, value in clip.features[0].items() if name == dense or name == "guidance"]
    last: dict[str, Plane] | None = None
    cells = clip.logits[0].shape[1:]
    for frame, own in zip(clip.frames, clip.features, strict=True):
        motion, now = estimate(frame, cells), dict(own)
        if last is not None and motion is not None and not motion.lost:
            for name in maps:
                at = grid_of(motion, own[name].shape[1:])
                now[name] = propagate(
                    last[name], at.flow, own[name].shape[1:], own[name], at.trust, rules, clip.threads
                )[0]
            if dense in maps:
                now[dense] = unit(now[dense])
        last = now
        yield label_map(clip.decode(now), clip.size, clip.threads)


def affinity(clip: Clip, share: float) -> Iterator[Any]:
    """The graph of training-free bundles (``--temporal affinity``) in numpy."""
    name = clip.segmenter.engine.can.dense or "dense"
    h, w = clip.features[0][name].shape[1:]
    y, x = (axis.reshape(-1) for axis in np.mgrid[:h, :w])
    far = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x)) > RADIUS
    outside = np.where(far, -np.inf, 0).astype(np.float32)
    last: Plane | None = None
    for own in clip.features:
        now = dict(own)
        if last is not None:
            here, before = own[name].reshape(-1, h * w), last.reshape(-1, h * w)
            like = here.T @ before / np.float32(LIKENESS) + outside
            like = np.exp(like - like.max(1, keepdims=True))
            carried = before @ (like / like.sum(1, keepdims=True)).T
            now[name] = unit(((1 - share) * here + share * carried).reshape(own[name].shape).astype(np.float32))
        last = now[name]
        yield label_map(clip.decode(now), clip.size, clip.threads)


def unit(values: Plane) -> Plane:
    return values / np.maximum(np.linalg.norm(values, axis=0, keepdims=True), 1e-12)


WAYS: dict[str, Callable[[Clip, float], Iterator[Any]]] = {
    "none": none,
    "logits": logits,
    "features": features,
    "affinity": affinity,
    "average": average,
}


class Scorer:
    """Scores of label maps; the flow that they are judged by is made once, by other code than the ways'."""

    def __init__(self, frames: Frames, truths: Maps, names: list[str], rate: float) -> None:
        self.truths, self.names, self.rate = truths, names, rate
        size = truths[0].shape
        self.flows = [moved(b, a, size) for a, b in pairwise(frames)]
        self.edges = [edges(t) for t in truths]

    def __call__(self, maps: Maps, part: slice) -> dict[str, Any]:
        """mIoU, VC8 and agreement in points, flips a second, boundary F in points, edge lag in frames."""
        at = range(len(maps))[part]
        confusion = Confusion(len(self.names), len(self.names))
        for t in at:
            confusion.update(self.truths[t], maps[t])
        steady = video_consistency(np.stack(self.truths[part]), np.stack(maps[part]), 8)
        counts = np.array([agreement(maps[t], maps[t - 1], *self.flows[t - 1]) for t in at[1:]]).sum(0)
        same = counts[0] / max(counts[1], 1)
        shown = {t: edges(maps[t]) for t in at}
        inner = [t for t in at if min(at) <= t - max(SHIFTS) and t - min(SHIFTS) <= max(at)]
        lag = [float(np.mean([boundary_f(shown[t], self.edges[t - shift]) for t in inner])) for shift in SHIFTS]
        return {
            "miou": 100 * float(confusion.scores()["miou"]),
            "vc8": 100 * float(np.mean(steady)) if len(steady) else None,
            "agreement": 100 * float(same),
            "flips": float(self.rate * (1 - same)),
            "boundary_f": 100 * lag[SHIFTS.index(0)],
            "edge_lag": peak(lag),
        }


def compare(clip: Clip, scorer: Scorer) -> dict[str, list[dict[str, Any]]]:
    """All ways at all their shares: scores of the first half, the second and all frames, and milliseconds."""
    half = len(clip.frames) // 2
    parts = {"first half": slice(0, half), "second half": slice(half, None), "all": slice(None)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, run in WAYS.items():
        for share in SHARES[name]:
            way = timed(run(clip, share))
            row = {"share": share, "ms": 1000 * float(np.median(way.seconds[1:]))}
            rows.setdefault(name, []).append(row | {part: scorer(way.maps, at) for part, at in parts.items()})
    return rows


def worth(row: dict[str, Any]) -> float:
    """What a share is chosen by, on the first half."""
    return float(row["first half"]["miou"] + 0.25 * (row["first half"]["vc8"] or 0))


def table(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of Markdown: each way at its best share."""
    plain = rows["none"][0]
    lines = [
        "| past | share | mIoU 1st half | 2nd half | all | VC8 all | flips a second | boundary F | edge lag | ms |",
        "|" + "---|" * 10,
    ]
    for name, tried in rows.items():
        best = max(tried, key=worth)
        gains = [
            f"{best[p]['miou'] - (plain[p]['miou'] if name != 'none' else 0):+.2f}"
            for p in ("first half", "second half", "all")
        ]
        every, vc8 = best["all"], best["all"]["vc8"]
        steady = "" if vc8 is None else f"{vc8 - (plain['all']['vc8'] if name != 'none' else 0):+.2f}"
        cells = [name, f"{best['share']:g}", *gains, steady, f"{every['flips']:.3f}", f"{every['boundary_f']:.2f}"]
        cells += [f"{every['edge_lag']:+.2f}", f"{best['ms'] - (plain['ms'] if name != 'none' else 0):.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


@click.command(context_settings=CONTEXT)
@click.option("--data", required=True, help="Labelled videos; the first clip of the split is taken.")
@click.option("--split", default="val", show_default=True)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True)
@click.option("--frames", default=None, type=click.IntRange(10), help="Only the first so many [default: all].")
@click.option("--rate", default=15.0, show_default=True, help="Frames a second of the clip.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", default=None, type=click.Path(path_type=Path), help="Every share that was tried.")
@program
def main(
    data: str, split: str, bundle: str, frames: int | None, rate: float, threads: int, json_file: Path | None
) -> None:
    """Compare ways to take something from the frame before; changes are against no past at all."""
    videos = open_videos(data, split)
    segmenter = Segmenter.load(bundle, "onnxruntime", "fp32", threads)
    pictures = [videos.frame(0, t) for t in range(videos.length(0))][:frames]
    truths = truth_of(videos, len(pictures))
    clip = looked(segmenter, pictures, videos.classes, truths[0].shape, threads)
    rows = compare(clip, Scorer(pictures, truths, videos.classes.names, rate))
    click.echo(f"{segmenter.bundle.manifest.name}, {len(pictures)} frames of {videos.videos[0]}")
    for line in table(rows):
        click.echo(line)
    if json_file is not None:
        whole = {"script": "temporal_variants", "frames": len(pictures), "rows": rows, "machine": machine()}
        json_file.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
