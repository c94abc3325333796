"""Scores of a model beyond the street: CamVid, DAVIS, facades, off-road tracks and clothes.

    python benchmarks/scenes.py --ckpt RUN --data DATA --json FILE
    python benchmarks/scenes.py --bundle scenes-lite --data DATA

DATA holds ``camvid`` and ``wide``. Smoothing is off. ``--test`` adds the split that only reports; without it, only
those that choose (``val``) are run. Word lists: the sets' own ``classes.txt``, ``davis_words.py``, ``scenes_words`` and
the table ``ov2vss/data/relations/scenes.txt``, which says what counts as the same in the union of all names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from davis_words import words_for
from machine import processor, revision

from ov2vss.data import open_files
from ov2vss.data.relations import Relations
from ov2vss.data.source import VideoSet
from ov2vss.evaluate.metrics import Confusion, video_consistency
from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.progress import Progress
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.stream import Stream

SETS = ("camvid", "wide/davis", "wide/things", "wide/clothes", "wide/facade", "wide/offroad")
STILLS = ("clothes", "facade", "offroad")
UNLABELLED_NOUNS = ("swan", "goat", "kite surfer", "man", "soapbox car")
"""Nouns of DAVIS val of which the issue asks a mean of their own."""
COMMONEST = 15
AREA = 352 * 512
"""Pixels of a frame for a checkpoint, whose size follows the aspect of each set; a bundle has its own size."""
ASKED = {
    "camvid test": (">=", 0.64),
    "camvid test, points lost by paraphrases": ("<=", 0.05),
    "davis val": (">=", 0.50),
    "davis val, five nouns": (">=", 0.35),
    "facade val": (">=", 0.55),
    "offroad val": (">=", 0.50),
    "clothes val": (">=", 0.35),
    **{f"{s} val, points lost in the union": ("<=", 0.06) for s in STILLS},
    **{f"{s} val, points lost by 50 words": ("<=", 0.05) for s in STILLS},
}


@dataclass(frozen=True)
class Subject:
    """A model that answers for any words.

    Attributes:
        stream: makes a stream for words and the aspect (width over height) of the frames; with True as the third
            argument each of its frames is to be seen alone.
        trained: names that training saw.
        offset: added to their logits.
    """

    stream: Callable[[Sequence[str], float, bool], Stream]
    trained: frozenset[str]
    offset: float

    def logits(self, words: Sequence[str], aspect: float, fresh: bool) -> Callable[[npt.NDArray], npt.NDArray]:
        """Frame -> logits ``[N, h, w]``; ``fresh`` forgets the past before each frame."""
        stream = self.stream(words, aspect, fresh)
        shift = np.array([self.offset * (w in self.trained) for w in words], np.float32)[:, None, None]

        def run(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            if fresh:
                stream.reset()
            return stream.logits(frame) + shift

        return run


def from_checkpoint(path: Path, offset: float) -> Subject:
    """A checkpoint, at frame sizes that follow the aspect of the pictures."""
    from ov2vss import checkpoint
    from ov2vss.torch_engine import PerFrameEngine, TorchEngine
    from ov2vss.train.start import nearest_size

    found = checkpoint.find(path, "last")
    model, encoder, config = found.build(), found.text_encoder(), found.run.train.model
    known: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}

    def stream(words: Sequence[str], aspect: float, alone: bool) -> Stream:
        engine = (PerFrameEngine if alone else TorchEngine)(model, nearest_size(AREA, aspect), encoder)
        vocabulary = Vocabulary(tuple((w,) for w in words))
        made = Stream(engine, vocabulary, config.prompts, config.gap, embeddings=known.get(tuple(words)))
        known[tuple(words)] = made.embeddings
        return made

    return Subject(stream, frozenset(found.run.classes), offset)


def from_bundle(name: str, offset: float) -> Subject:
    """A bundle, at its own size."""
    from ov2vss_runtime import Segmenter

    segmenter = Segmenter.load(name)
    manifest = segmenter.bundle.manifest

    def stream(words: Sequence[str], aspect: float, alone: bool) -> Stream:
        vocabulary = Vocabulary(tuple((w,) for w in words))
        return Stream(segmenter.engine, vocabulary, manifest.vocabulary.templates, manifest.gap)

    return Subject(stream, frozenset(manifest.source.get("trained_classes", ())), offset)


def frames(videos: VideoSet, every: int) -> Iterator[tuple[int, int]]:
    """``(video, frame)`` of labelled frames; with ``every`` above one, of only every so many."""
    for video in range(len(videos.videos)):
        labelled = set(videos.labelled(video))
        for index in range(0, videos.length(video), every):
            if index in labelled:
                yield video, index


def still_scores(subject: Subject, root: Path, name: str, every: int, union: list[str], more: list[str]) -> dict:
    """mIoU of a set of stills with its own names, with the union of all names, and with unrelated words added."""
    videos = open_files(str(root / "wide" / name), "val")
    own = videos.classes.names
    words = list(dict.fromkeys([*own, *union, *more]))
    index = {w: k for k, w in enumerate(words)}
    lists = {"own": own, "union": union, "50 words": [*own, *more]}
    relations = Relations.read("scenes")
    stands = {key: stand_ins(relations, given, own) for key, given in lists.items()}
    tallies = {key: Confusion(len(own), len(own)) for key in lists}
    first = videos.frame(0, 0)
    run = subject.logits(words, first.shape[1] / first.shape[0], fresh=True)
    todo = list(frames(videos, every))
    with Progress(len(todo), name, "picture") as bar:
        for video, i in todo:
            truth = videos.mask(video, i).astype(np.int64) - 1
            truth[(truth < 0) | (truth >= len(own))] = 255
            logits = run(videos.frame(video, i))
            for key, given in lists.items():
                rows = np.ascontiguousarray(logits[[index[w] for w in given]])
                hit, leading = stands[key]
                predicted = label_map(rows, truth.shape[:2]).astype(np.int64)
                right = hit[predicted, np.minimum(truth, len(own) - 1)] & (truth < len(own))
                tallies[key].update(truth, np.where(right, truth, leading[predicted]))
            bar.update()
    scores = {key: c.scores()["per_class"] for key, c in tallies.items()}
    frequency = tallies["own"].matrix.sum(1)
    count = COMMONEST if name == "clothes" else len(own)
    chosen = [k for k in np.argsort(-frequency, kind="stable")[:count] if frequency[k]]
    found = {key: float(np.mean([s[k] for k in chosen])) for key, s in scores.items()}
    return {
        f"{name} val": found["own"],
        f"{name} val, points lost in the union": found["own"] - found["union"],
        f"{name} val, points lost by 50 words": found["own"] - found["50 words"],
        f"{name} per class": {own[k]: round(scores["own"][k], 3) for k in chosen},
        f"{name} per class in the union": {own[k]: round(scores["union"][k], 3) for k in chosen},
    }


def stand_ins(
    relations: Relations, words: list[str], classes: list[str]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """``hit[word, class]``, and the class that a word leads to where it is no hit (``len(classes)``: none)."""
    hit = np.zeros((len(words), len(classes)), bool)
    leading = np.full(len(words), len(classes))
    for number, word in enumerate(words):
        stands = relations.stands_for(word, classes)
        hit[number, stands] = True
        leading[number] = stands[0] if stands else len(classes)
    return hit, leading


def davis_scores(subject: Subject, root: Path, every: int) -> dict:
    """Foreground IoU of each clip over all its pixels, and the means."""
    videos = open_files(str(root / "wide" / "davis"), "val")
    scores: dict[str, tuple[str, float]] = {}
    with Progress(len(videos.videos), "davis", "clip") as bar:
        for video, clip in enumerate(videos.videos):
            noun = next(
                videos.classes.names[k - 1]
                for i in videos.labelled(video)
                for k in np.unique(videos.mask(video, i))
                if k
            )
            frame = videos.frame(video, 0)
            run = subject.logits(words_for(noun), frame.shape[1] / frame.shape[0], fresh=every > 1)
            both = either = 0
            for index in range(0, videos.length(video), every):
                truth = videos.mask(video, index) > 0
                predicted = label_map(run(videos.frame(video, index)), truth.shape) == 0
                both, either = both + int((truth & predicted).sum()), either + int((truth | predicted).sum())
            scores[clip] = (noun, both / max(1, either))
            bar.update()
    five = [value for noun, value in scores.values() if noun in UNLABELLED_NOUNS]
    return {
        "davis val": float(np.mean([value for _, value in scores.values()])),
        "davis val, five nouns": float(np.mean(five)),
        "davis per clip": {f"{clip} ({noun})": round(value, 3) for clip, (noun, value) in scores.items()},
    }


def camvid_scores(subject: Subject, root: Path, split: str, every: int) -> dict:
    """mIoU with the eleven names and with paraphrases; VC8 where every frame is labelled."""
    folder = root / "camvid"
    videos = open_files(str(folder), split)
    own = videos.classes.names
    other = Vocabulary.from_file(folder / "paraphrases.txt").names
    words = [*own, *other]
    tallies = [Confusion(len(own), len(own)) for _ in range(2)]
    steady: list[float] = []
    for video in range(len(videos.videos)):
        frame = videos.frame(video, 0)
        run = subject.logits(words, frame.shape[1] / frame.shape[0], fresh=every > 1)
        labelled = videos.labelled(video)
        truths, maps = [], []
        with Progress(-(-videos.length(video) // every), f"camvid {split}", "frame") as bar:
            for index in range(0, videos.length(video), every):
                logits = run(videos.frame(video, index))
                bar.update()
                if index not in labelled:
                    continue
                truth = videos.mask(video, index).astype(np.int64) - 1
                truth[(truth < 0) | (truth >= len(own))] = 255
                for k, tally in enumerate(tallies):
                    rows = np.ascontiguousarray(logits[k * len(own) : (k + 1) * len(own)])
                    predicted = label_map(rows, truth.shape)
                    tally.update(truth, predicted)
                    if k == 0 and every == 1 and len(labelled) == videos.length(video):
                        truths.append(truth)
                        maps.append(predicted)
        if maps:
            steady += video_consistency(np.stack(truths), np.stack(maps), 8)
    scores = [t.scores() for t in tallies]
    found: dict[str, Any] = {
        f"camvid {split}": scores[0]["miou"],
        f"camvid {split}, points lost by paraphrases": scores[0]["miou"] - scores[1]["miou"],
        f"camvid {split} per class": {n: round(v or 0, 3) for n, v in zip(own, scores[0]["per_class"], strict=True)},
    }
    if steady:
        found[f"camvid {split} VC8"] = float(np.mean(steady))
    return found


@click.command(context_settings=CONTEXT)
@click.option("--ckpt", type=click.Path(path_type=Path), help="A run folder, or one of its checkpoints (the last).")
@click.option("--bundle", help="A bundle: folder or built-in name.")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Holds camvid and wide.")
@click.option("--only", default="camvid,davis,clothes,facade,offroad", show_default=True, help="Sets to run.")
@click.option("--every", default=1, show_default=True, type=click.IntRange(1), help="Every so many frames, each alone.")
@click.option("--test", is_flag=True, help="CamVid test too, which only reports.")
@click.option("--offset", default=0.0, show_default=True, help="Added to the logits of names that training saw.")
@click.option("--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write all figures.")
@program
def main(
    ckpt: Path | None,
    bundle: str | None,
    data: Path,
    only: str,
    every: int,
    test: bool,
    offset: float,
    json_file: Path | None,
) -> None:
    """Print the scores of a checkpoint or a bundle on scenes of all kinds."""
    if (ckpt is None) == (bundle is None):
        raise click.UsageError("give --ckpt or --bundle")
    subject = from_checkpoint(ckpt, offset) if ckpt is not None else from_bundle(str(bundle), offset)
    chosen = only.split(",")
    union = list(dict.fromkeys(n for s in SETS for n in open_files(str(data / s), "train").classes.names))
    more = Vocabulary.from_file(Path(__file__).parent / "scenes_words" / "unrelated.txt").names
    found: dict[str, Any] = {}
    if "camvid" in chosen:
        found |= camvid_scores(subject, data, "val", every)
        if test:
            found |= camvid_scores(subject, data, "test", 1)
    if "davis" in chosen:
        found |= davis_scores(subject, data, every)
    for name in STILLS:
        if name in chosen:
            found |= still_scores(subject, data, name, every, union, more)
    click.echo(f"{ckpt or bundle}, {revision()}, {processor()}, every {every}, offset {offset:g}, smoothing off")
    for key, value in found.items():
        if isinstance(value, dict):
            click.echo(f"    {key}: " + ", ".join(f"{k} {v:.3f}" for k, v in value.items()))
            continue
        sign, limit = ASKED.get(key, ("", 0.0))
        holds = value >= limit if sign == ">=" else value <= limit
        click.echo(
            f"{key}: {value:.3f}" + (f"  asked {sign} {limit:g}: {'holds' if holds else 'missed'}" if sign else "")
        )
    if json_file is not None:
        write_json(json_file, {"subject": str(ckpt or bundle), "every": every, "offset": offset, "scores": found})


if __name__ == "__main__":
    main()
