"""What confidence is worth at each temperature, and what leaving absent words out does, on labelled frames.

    python benchmarks/confidence.py --bundle street-lite --data camvid --split val

Words are compared with a bundle's dense features by their cosines alone, frame by frame, as a training-free bundle
does; no decoder, nothing carried. Prints the calibration error (ECE, 15 bins of the best word's share of the softmax)
of the data set's own names and of these with more words that are not in the pictures; and mIoU when words whose share
stays below a bound everywhere in a frame are left out (``--drop-absent``). Result of street-lite: docs/any-words.md.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt

from ov2vss.data import open_videos
from ov2vss.evaluate.metrics import Confusion
from ov2vss_runtime import Segmenter, Vocabulary
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.pruning import ClassPruner

OTHERS = Path(__file__).parents[1] / "ov2vss" / "data" / "classes" / "vspw.txt"
TEMPERATURES = (10, 20, 30, 40, 60, 100)
ABSENT = (0.0, 0.2, 0.3, 0.5, 0.6, 0.7)
BINS = 15
USUAL = 40.0


def calibration_error(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> float:
    """Mean gap between confidence and accuracy over bins of confidence, weighted by what falls into them."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    total = 0.0
    for number in range(BINS):
        there = bins == number
        if there.any():
            total += abs(confidence[there].mean() - right[there].mean()) * there.mean()
    return float(total)


def shares(cosines: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.floating]:
    """The best word's share of the softmax at every place; cosines ``[N, places]``."""
    best: npt.NDArray[np.floating] = 1 / np.exp(temperature * (cosines - cosines.max(0))).sum(0)
    return best


@click.command(context_settings=CONTEXT)
@click.option("--bundle", default="street-lite", show_default=True)
@click.option("--data", required=True, help="Labelled videos, as ov2vss-eval reads them.")
@click.option("--split", default="val", show_default=True)
@click.option("--frames", default=30, show_default=True, type=click.IntRange(1), help="About so many, evenly chosen.")
@click.option("--others", default=100, show_default=True, type=click.IntRange(1), help="Words of VSPW that are added.")
@program
def main(bundle: str, data: str, split: str, frames: int, others: int) -> None:
    """Print calibration by temperature, and mIoU by how many absent words are left out."""
    segmenter, videos = Segmenter.load(bundle), open_videos(data, split)
    names = videos.classes.names
    known = {name.casefold() for name in names}
    more = [n for n in Vocabulary.from_file(OTHERS).names if n.casefold() not in known][:others]
    own = segmenter.stream(None, videos.classes).embeddings
    every = np.concatenate([own, segmenter.stream(None, Vocabulary(tuple((n,) for n in more))).embeddings])
    places = [(v, i) for v in range(len(videos.videos)) for i in videos.labelled(v)]
    places = places[:: max(1, len(places) // frames)]
    dense, truths = [], []
    for video, index in places:
        small = np.ascontiguousarray(resize_frame(videos.frame(video, index), segmenter.size))
        found = np.array(segmenter.engine.feature(segmenter.engine.backbone(small), segmenter.engine.can.dense or ""))
        mask = cv2.resize(videos.mask(video, index), found.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        dense.append(found.reshape(len(found), -1))
        truths.append((mask - np.uint8(1)).reshape(-1))  # 0, void, becomes 255
    truth = np.concatenate(truths)
    valid = truth < len(names)

    def miou(labels: npt.NDArray[np.integer]) -> float:
        confusion = Confusion(len(names), len(every))
        confusion.update(truth, labels)
        return float(confusion.scores()["miou"])

    click.echo(f"| words | accuracy | mIoU | {' | '.join(f'ECE at {t}' for t in TEMPERATURES)} |")
    click.echo("|---|---|---|" + "---|" * len(TEMPERATURES))
    for rows in (own, every):
        cosines = rows @ np.concatenate(dense, 1)
        labels = cosines.argmax(0)
        right = (labels == truth)[valid]
        errors = [calibration_error(shares(cosines[:, valid], t), right) for t in TEMPERATURES]
        figures = " | ".join(f"{e:.3f}" for e in errors)
        click.echo(f"| {len(rows)} | {right.mean():.3f} | {miou(labels):.3f} | {figures} |")
    click.echo("\n| left out below | words kept | mIoU |\n|---|---|---|")
    for absent in ABSENT:
        kept, labelled = [], []
        for features in dense:
            active = np.arange(len(every))
            if absent:
                pruner = ClassPruner(absent=absent, temperature=USUAL)
                pruner.look(features[:, None], every)
                active = pruner.active()
            kept.append(len(active))
            labelled.append(active[(every[active] @ features).argmax(0)])
        click.echo(f"| {absent or 'off'} | {np.mean(kept):.1f} | {miou(np.concatenate(labelled)):.3f} |")


if __name__ == "__main__":
    main()
