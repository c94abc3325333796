"""The published table of training-free CLIP, made again: our mIoU beside the authors', set by set and recipe by recipe.

    python benchmarks/clip_table.py --clip ViT-B-16/openai --download --data-root DIR
    python benchmarks/clip_table.py --clip ViT-B-16/openai --data-root DIR --sets voc20,ade150 --limit 200

DIR holds the data sets in their usual folders: VOCdevkit/VOC2012, VOCdevkit/VOC2010 (Pascal Context, with
SegmentationClassContext), ADEChallengeData2016, coco_stuff164k, coco_object and cityscapes; what is not there is left
out. Protocol of the published figures: short side 336 (Cityscapes 560), windows of 224 with a stride of 112, logits
averaged (``neighbour`` sees VOC in one pass); 80 sentences a word; cosine times 40; the best synonym counts; where the
background is a class, a list of 26 words and the threshold 0.1 stand for it. Words: ov2vss/data/classes.

``--windows none`` shows what the default of a bundle gives: one pass at the fixed size nearest to the picture's aspect.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from ov2vss.data import SETS, StillFrames, StillImages, VideoSet
from ov2vss.data.cityscapes import CityscapesVideos
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.any_words import WordOptions
from ov2vss.evaluate.evaluate import Labels, Predict, Protocol, make_protocol, tally
from ov2vss_runtime import Segmenter
from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.clip_bundles import RECIPES, ClipOptions, nearest_size, of_windows
from ov2vss_runtime.console import CONTEXT, program

log = logging.getLogger("ov2vss")
CITYSCAPES = "cityscapes"
NAMES = (*SETS, CITYSCAPES)
TILES, CITY_TILES = "336:112", "560:112"
"""Shorter side and stride in pixels, of most sets and of Cityscapes."""
PUBLISHED = {
    "value": {
        "voc21": 43.4, "context60": 23.2, "cocoobject": 20.6, "voc20": 74.9, "cityscapes": 24.9, "context59": 26.4,
        "ade150": 11.9, "cocostuff171": 16.7,
    },
    "neighbour": {
        "voc21": 58.9, "context60": 32.2, "cocoobject": 33.2, "voc20": 79.7, "cityscapes": 35.5, "context59": 35.2,
        "ade150": 17.4, "cocostuff171": 23.3,
    },
    "calibrated": {
        "voc21": 62.9, "context60": 37.2, "cocoobject": 37.9, "voc20": 84.5, "cityscapes": 41.1, "context59": 39.9,
        "ade150": 20.8, "cocostuff171": 26.4,
    },
}  # fmt: skip
"""mIoU in per cent of MaskCLIP, NACLIP and SFP with OpenAI's ViT-B/16, as their papers and later tables give it."""
WHOLE = {("neighbour", "voc20"), ("neighbour", "voc21")}
"""Published without windows."""


@dataclass(frozen=True)
class Setting:
    """How bundles are made and run.

    Attributes:
        clip: open_clip's MODEL/TAG.
        weights, download: where weights come from.
        backend: engine.
        windows: ``published``, ``all`` or ``none``.
        size: of windows, HxW.
        tiles: shorter side and stride, for all sets; empty: as published.
    """

    clip: str
    weights: str
    download: bool
    backend: str
    windows: str
    size: str
    tiles: str = ""

    def tiled(self, recipe: str, name: str) -> bool:
        return self.windows == "all" or (self.windows == "published" and (recipe, name) not in WHOLE)

    def load(self, recipe: str, size: str) -> Segmenter:
        options = ClipOptions(self.weights, self.download, recipe)
        return Segmenter.load(f"clip:{self.clip}@{size}", self.backend, clip=options)


def open_set(name: str, root: Path) -> VideoSet | None:
    """A data set of :data:`NAMES` below ``root``; None where it is not there."""
    if name == CITYSCAPES:
        found = next((p for p in (root / CITYSCAPES, root) if (p / "gtFine").is_dir()), None)
        return StillFrames(CityscapesVideos(found, "val")) if found is not None else None
    try:
        return StillImages(name, root)
    except OV2VSSError as error:
        log.info("%s: %s", name, error.problem)
        return None


def predict_with(setting: Setting, recipe: str, name: str, setup: Protocol) -> Predict:
    """Label maps of pictures: in windows, or in one pass by the bundle whose size is nearest to each one's aspect."""
    tiled = setting.tiled(recipe, name)
    tiles = setting.tiles or (CITY_TILES if name == CITYSCAPES else TILES)
    words = WordOptions(synonyms="max", tiles=tiles if tiled else None)
    loaded: dict[str, Segmenter] = {}
    embeddings: list[np.ndarray] = []

    def predict(videos: VideoSet, video: int) -> Iterator[Labels | None]:
        frame = videos.frame(video, 0)
        height, width = nearest_size(frame.shape[1] / frame.shape[0])
        size = setting.size if tiled else f"{height}x{width}"
        if size not in loaded:
            loaded[size] = setting.load(recipe, size)
        options = words.stream_options(setup, loaded[size].bundle.manifest)
        known = embeddings[0] if embeddings else None
        stream = loaded[size].stream(None, setup.vocabulary, embeddings=known, options=options)
        embeddings[:] = [stream.embeddings]
        yield stream.step(frame).labels

    return predict


def score(setting: Setting, recipe: str, name: str, videos: VideoSet, limit: int | None) -> dict[str, Any]:
    """mIoU in per cent of one recipe on one set, pictures and seconds."""
    began = time.perf_counter()
    setup = make_protocol(videos, "all", None)
    every = max(1, round(len(videos.videos) / limit)) if limit else 1
    found = tally(videos, setup, predict_with(setting, recipe, name, setup), progress=True, share=(0, every))
    scores = found.scores(videos, setup)
    return {
        "recipe": recipe,
        "set": name,
        "windows": setting.tiled(recipe, name),
        "miou": None if scores["miou"] is None else 100 * scores["miou"],
        "published": PUBLISHED[recipe].get(name),
        "pictures": scores["frames"],
        "seconds": time.perf_counter() - began,
    }


def rows(results: list[dict[str, Any]], published: bool) -> list[str]:
    """The table in Markdown: ours beside the published figure."""
    lines = ["| set | recipe | windows | ours | published | difference | pictures | s a picture |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for r in results:
        known = r["published"] if published else None
        ours = "-" if r["miou"] is None else f"{r['miou']:.1f}"
        theirs, gap = "-" if known is None else f"{known:.1f}", "-"
        if known is not None and r["miou"] is not None:
            gap = f"{r['miou'] - known:+.1f}"
        title = "Cityscapes" if r["set"] == CITYSCAPES else SETS[r["set"]].title
        row = [title, r["recipe"], "yes" if r["windows"] else "no", ours, theirs, gap, str(r["pictures"])]
        lines.append(f"| {' | '.join(row)} | {r['seconds'] / max(r['pictures'], 1):.2f} |")
    return lines


def _names(known: tuple[str, ...]) -> Callable[..., tuple[str, ...]]:
    def parse(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise click.BadParameter(f"{', '.join(wrong) or 'nothing'} is not among {', '.join(known)}")
        return names

    return parse


@click.command(context_settings=CONTEXT)
@click.option("--clip", required=True, metavar="MODEL/TAG", help="open_clip's names; published is ViT-B-16/openai.")
@click.option("--data-root", required=True, type=click.Path(path_type=Path), help="Folder of the data sets' folders.")
@click.option("--clip-weights", default="", metavar="FILE", help="A file of weights, or 'random'.")
@click.option("--download", is_flag=True, help="Allow weights to be fetched.")
@click.option("--dense", "recipes", default=",".join(RECIPES), show_default=True, callback=_names(RECIPES))
@click.option("--sets", default=",".join(NAMES), show_default=True, callback=_names(NAMES))
@click.option(
    "--windows", default="published", show_default=True, type=click.Choice(["published", "all", "none"]),
    help="As each figure was published, for all sets, or one pass a picture.",
)  # fmt: skip
@click.option("--window", default="", metavar="HxW", help="Size of windows [default: 224x224].")
@click.option("--tiles", default="", metavar="SHORT:STRIDE", help="[default: 336:112; 560:112 for Cityscapes]")
@click.option("--limit", default=None, type=click.IntRange(1), help="About so many pictures a set, evenly chosen.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path),
    help="Kept up to date set by set; what it holds already is not run again.",
)  # fmt: skip
@program
def main(
    clip: str,
    data_root: Path,
    clip_weights: str,
    download: bool,
    recipes: tuple[str, ...],
    sets: tuple[str, ...],
    windows: str,
    window: str,
    tiles: str,
    limit: int | None,
    backend: str,
    json_file: Path | None,
) -> None:
    """Score recipes of training-free CLIP on the sets below a folder, and print them beside the published figures."""
    if not data_root.is_dir():
        raise OV2VSSError(f"{data_root} does not exist", "check --data-root")
    opened = {name: videos for name in sets if (videos := open_set(name, data_root)) is not None}
    if not opened:
        raise OV2VSSError(f"{data_root} holds none of {', '.join(sets)}", "see python benchmarks/clip_table.py -h")
    if missing := [name for name in sets if name not in opened]:
        click.echo(f"not below {data_root}, left out: {', '.join(missing)}")
    size = window or of_windows("").removeprefix("@")
    setting = Setting(clip, clip_weights, download, backend, windows, size, tiles)
    about = {"clip": clip, "weights": clip_weights, "windows": windows, "window": size, "tiles": tiles, "limit": limit}
    kept = json.loads(json_file.read_text()) if json_file is not None and json_file.is_file() else {"results": []}
    results = kept["results"] if kept.get("setting") == about else []
    for name, videos in opened.items():
        for recipe in recipes:
            if not any(r["set"] == name and r["recipe"] == recipe for r in results):
                results.append(score(setting, recipe, name, videos, limit))
                if json_file is not None:
                    write_json(json_file, {"setting": about, "results": results})
    wanted = [r for r in results if r["set"] in opened and r["recipe"] in recipes]
    for line in rows(wanted, clip == "ViT-B-16/openai" and clip_weights != "random"):
        click.echo(line)


if __name__ == "__main__":
    main()
