"""Sets of labelled pictures: read from their usual folders, and scored as numpy does."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import clip_table
from ov2vss.data import SETS, open_videos
from ov2vss.data.still_sets import COCO_IDS
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.cli import main as evaluate
from ov2vss.evaluate.evaluate import make_protocol, tally
from ov2vss_runtime import Segmenter
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.stream.preprocess import resize_frame
from tests.hand_made import SCALE, WIDTH, HandMade

SHAPES = [(48, 64), (64, 48), (40, 40)]


def picture(number: int, shape: tuple[int, int]) -> np.ndarray:
    coarse = np.random.RandomState(number).randint(0, 256, (6, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize(shape[::-1], Image.BICUBIC))


def mask(number: int, shape: tuple[int, int], ids: list[int]) -> np.ndarray:
    coarse = np.random.RandomState(100 + number).choice(ids, (4, 4)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize(shape[::-1], Image.NEAREST))


def save(path: Path, array: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([k for k in range(256) for _ in range(3)])
    image.save(path, quality=95)


def pascal(root: Path, year: str, masks: str, lists: str, count: int) -> None:
    base = root / "VOCdevkit" / f"VOC{year}"
    names = [f"{year}_{k:06d}" for k in range(3)]
    (base / "ImageSets" / lists).mkdir(parents=True)
    (base / "ImageSets" / lists / "val.txt").write_text("\n".join(names) + "\n")
    for k, (name, shape) in enumerate(zip(names, SHAPES, strict=True)):
        save(base / "JPEGImages" / f"{name}.jpg", picture(k, shape))
        save(base / masks / f"{name}.png", mask(k, shape, [0, 7, 12, count, 255]), palette=True)


def coco(root: Path) -> None:
    base = root / "coco_stuff164k"
    for k, shape in enumerate(SHAPES):
        save(base / "images" / "val2017" / f"{k:012d}.jpg", picture(k, shape))
        save(base / "annotations" / "val2017" / f"{k:012d}.png", mask(k, shape, [2, 17, 89, 91, 181, 255]))


def ade(root: Path) -> None:
    base = root / "ADEChallengeData2016"
    for k, shape in enumerate(SHAPES):
        save(base / "images" / "validation" / f"ADE_val_{k:08d}.jpg", picture(k, shape))
        save(base / "annotations" / "validation" / f"ADE_val_{k:08d}.png", mask(k, shape, [0, 1, 5, 21, 127, 150]))


def cityscapes(root: Path) -> None:
    base = root / "cityscapes"
    for k in range(2):
        name = f"town_{k:06d}_000019"
        save(base / "leftImg8bit" / "val" / "town" / f"{name}_leftImg8bit.png", picture(k, (48, 96)))
        save(base / "gtFine" / "val" / "town" / f"{name}_gtFine_labelTrainIds.png", mask(k, (48, 96), [0, 10, 13, 255]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    pascal(folder, "2012", "SegmentationClass", "Segmentation", 20)
    pascal(folder, "2010", "SegmentationClassContext", "SegmentationContext", 59)
    coco(folder)
    ade(folder)
    cityscapes(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "made"
    return HandMade().write(folder, unknown_below=0.1, temperature=SCALE)


def embeddings(texts: list[str]) -> np.ndarray:
    """Another unit vector for each text."""
    rows = np.stack([np.random.RandomState(zlib.crc32(text.encode())).standard_normal(WIDTH) for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def text_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the hand-made bundle's text graph, which knows six words."""
    monkeypatch.setattr(BundleEngine, "encode_text", lambda self, texts: embeddings(texts))


TRUTHS: dict[str, Callable[[int], int]] = {
    # stored id -> class by its line in the file of words, -1 for pixels of no class, None for void
    "voc20": lambda k: k - 1 if 1 <= k <= 20 else None,
    "voc21": lambda k: k - 1 if 1 <= k <= 20 else (20 if k == 0 else None),
    "context59": lambda k: k - 1 if 1 <= k <= 59 else None,
    "context60": lambda k: k - 1 if 1 <= k <= 59 else (59 if k == 0 else None),
    "ade150": lambda k: k - 1 if 1 <= k <= 150 else None,
    "cocostuff171": lambda k: COCO_IDS.index(k) if k != 255 else None,
    "cocoobject": lambda k: (COCO_IDS.index(k) if k < 90 else 80) if k != 255 else None,
}


@pytest.mark.parametrize("name", SETS)
def test_masks_mean_what_the_sets_say(root: Path, name: str) -> None:
    videos = open_videos(f"{name}:{root}", "val")
    assert [videos.length(v) for v in range(len(videos.videos))] == [1, 1, 1]
    stored = {"voc20": [0, 7, 12, 20, 255], "voc21": [0, 7, 12, 20, 255], "ade150": [0, 1, 5, 21, 127, 150]}
    ids = stored.get(name, [0, 7, 12, 59, 255] if name.startswith("context") else [2, 17, 89, 91, 181, 255])
    for v, shape in enumerate(SHAPES):
        assert videos.frame(v, 0).shape == (*shape, 3)
        wanted = [TRUTHS[name](int(k)) for k in mask(v, shape, ids).reshape(-1)]
        raw = np.array([255 if k is None else k + 1 for k in wanted]).reshape(shape)
        found = videos.mask(v, 0)
        assert np.array_equal(np.where(found == 0, 255, found), raw)


@pytest.mark.parametrize(
    ("name", "number", "word"),
    [
        ("voc21", 15, "potted plant"), ("voc21", 20, "background"), ("context59", 58, "wood"),
        ("ade150", 0, "wall"), ("ade150", 149, "flag"), ("ade150", 126, "animal"), ("cocostuff171", 0, "person"),
        ("cocostuff171", 80, "banner"), ("cocostuff171", 170, "wood"), ("cocoobject", 79, "toothbrush"),
        ("cocoobject", 80, "background"),
    ],
)  # fmt: skip
def test_names_of_classes(root: Path, name: str, number: int, word: str) -> None:
    assert open_videos(f"{name}:{root}", "val").classes.names[number] == word


def test_converted_masks_are_taken_before_the_published_maps(root: Path, tmp_path: Path) -> None:
    coco(tmp_path)
    folder = tmp_path / "coco_stuff164k" / "annotations" / "val2017"
    for k, shape in enumerate(SHAPES):
        save(folder / f"{k:012d}_labelTrainIds.png", np.full(shape, 170, np.uint8))
        save(folder / f"{k:012d}_instanceTrainIds.png", np.full(shape, k, np.uint8))
    stuff, objects = (open_videos(f"{name}:{tmp_path}", "val") for name in ("cocostuff171", "cocoobject"))
    assert {int(stuff.mask(v, 0).max()) for v in range(3)} == {171}
    assert [int(objects.mask(v, 0)[0, 0]) for v in range(3)] == [81, 1, 2]
    assert [objects.frame_name(v, 0) for v in range(3)] == [f"{k:012d}" for k in range(3)]


def test_what_is_missing_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OV2VSSError, match=r"holds no Pascal VOC 21 .*JPEGImages, SegmentationClass"):
        open_videos(f"voc21:{tmp_path}", "val")
    with pytest.raises(OV2VSSError, match="no split 'test'"):
        open_videos(f"voc21:{root}", "test")
    pascal(tmp_path, "2012", "SegmentationClass", "Segmentation", 20)
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2012_000001.jpg").unlink()
    with pytest.raises(OV2VSSError, match=r"2012_000001.jpg is missing"):
        open_videos(f"voc21:{tmp_path}", "val")


def test_unknown_pixels_count_for_the_background_and_distractors_for_nobody(root: Path) -> None:
    videos = open_videos(f"voc21:{root}", "val")
    words = Vocabulary((*videos.classes.entries[:20], ("cloud",), ("river",)))
    protocol = make_protocol(videos, "all", words)
    assert (protocol.background, len(protocol.vocabulary), protocol.counts) == (20, 22, 23)
    truths = [videos.mask(v, 0) for v in range(3)]
    guesses = [np.random.RandomState(v).choice([6, 11, 19, 20, 21, 255], t.shape).astype(np.uint8)
               for v, t in enumerate(truths)]  # fmt: skip
    found = tally(videos, protocol, lambda _, v: iter([guesses[v]])).scores(videos, protocol)
    truth, guess = (np.concatenate([x.reshape(-1) for x in part]) for part in (truths, guesses))
    for k in (6, 11, 19, 20):
        said = guess == (255 if k == 20 else k)
        true, counts = truth == k + 1, truth != 255
        iou = (said & true).sum() / ((said | true) & counts).sum()
        assert found["per_class"][videos.classes.names[k]] == pytest.approx(iou, abs=1e-12)


def miou_by_hand(name: str, root: Path, tiles: tuple[int, int] | None) -> float:
    """mIoU in per cent of the hand-made bundle in numpy: rows, windows, softmax, threshold, best row's class."""
    import cv2

    videos = open_videos(f"{name}:{root}", "val")
    count = len(videos.classes) - (videos.background is not None)
    entries = videos.classes.entries[:count]
    rows = [(word, k) for k, entry in enumerate(entries) for word in entry]
    if videos.background is not None:
        stuff = (Path(clip_table.__file__).parents[1] / "runtime/ov2vss_runtime/words/stuff.txt").read_text()
        known = {word for word, _ in rows}
        rows += [(w, 255) for w in stuff.splitlines() if not w.startswith("#") and w not in known]
    vectors = embeddings([word for word, _ in rows])
    hits, union = np.zeros(count + 1), np.zeros(count + 1)
    present = np.zeros(count + 1, bool)
    for v in range(3):
        frame = videos.frame(v, 0)
        size = (64, 96)
        if tiles is not None:
            size = tuple(max(round(side * tiles[0] / min(frame.shape[:2])), tiles[0]) for side in frame.shape[:2])
        image = resize_frame(frame, size)
        total, times = np.zeros((len(rows), *(size if tiles else (8, 12)))), np.zeros(size)
        if tiles is None:
            total = SCALE * np.einsum("nd,dhw->nhw", vectors, HandMade.features(image))
        else:
            for y in range(max(size[0] - 64 + tiles[1] - 1, 0) // tiles[1] + 1):
                for x in range(max(size[1] - 96 + tiles[1] - 1, 0) // tiles[1] + 1):
                    top, left = min(y * tiles[1], size[0] - 64), min(x * tiles[1], size[1] - 96)
                    part = HandMade.features(image[top : top + 64, left : left + 96])
                    planes = SCALE * np.einsum("nd,dhw->nhw", vectors, part)
                    total[:, top : top + 64, left : left + 96] += [cv2.resize(p, (96, 64)) for p in planes]
                    times[top : top + 64, left : left + 96] += 1
            total /= times
        scores = np.stack([cv2.resize(p, frame.shape[1::-1]) for p in total])
        share = np.exp(scores - scores.max(0))
        share /= share.sum(0)
        labels = np.array([k for _, k in rows])[share.argmax(0)]
        if videos.background is not None:
            labels = np.where((share.max(0) < 0.1) | (labels == 255), count, labels)
        truth = videos.mask(v, 0)
        valid = (truth != 0) & (truth != 255)
        for k in range(len(videos.classes)):
            true, said = valid & (truth == k + 1), valid & (labels == k)
            hits[k] += (true & said).sum()
            union[k] += (true | said).sum()
            present[k] |= true.any()
    return float(100 * np.mean((hits / np.maximum(union, 1))[present]))


@pytest.mark.parametrize("windows", ["all", "none"])
def test_the_table_is_what_numpy_makes_of_the_same_pictures(
    root: Path, bundle: Path, tmp_path: Path, windows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Segmenter.load(bundle)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(clip_table.Setting, "load", lambda self, *how: asked.append(how) or loaded)
    out = tmp_path / "table.json"
    args = ["--clip", "ViT-B-16/openai", "--data-root", str(root), "--dense", "neighbour", "--json", str(out)]
    args += ["--windows", windows, "--tiles", "100:48"]
    done = CliRunner().invoke(clip_table.main, args)
    assert done.exit_code == 0, done.output
    results = {r["set"]: r for r in json.loads(out.read_text())["results"]}
    assert list(results) == list(clip_table.NAMES)
    for name in SETS:
        expected = miou_by_hand(name, root, (100, 48) if windows == "all" else None)
        assert results[name]["miou"] == pytest.approx(expected, abs=0.05), name
    assert f"{clip_table.PUBLISHED['neighbour']['voc21']:.1f}" in done.output
    size = {size for _, size in asked}
    assert size == ({"224x224"} if windows == "all" else {"336x448", "448x336", "384x384", "288x512"})
    before = len(asked)
    again = CliRunner().invoke(clip_table.main, args)
    assert again.output.splitlines()[-8:] == done.output.splitlines()[-8:]
    assert len(asked) == before


def test_a_root_without_sets_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(clip_table.main, ["--clip", "ViT-B-16/openai", "--data-root", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds none of voc20" in done.output


def test_eval_scores_pictures_with_background_and_windows(root: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    base = ["--bundle", str(bundle), "--data", f"voc21:{root}", "--json", str(out)]
    done = CliRunner().invoke(evaluate, [*base, "--tiles", "100:48", "--synonyms", "max"])
    assert done.exit_code == 0, done.output
    scores = json.loads(out.read_text())
    assert 100 * scores["miou"] == pytest.approx(miou_by_hand("voc21", root, (100, 48)), abs=0.05)
    assert "background" in scores["per_class"]
    done = CliRunner().invoke(evaluate, [*base, "--background", "none", "--unknown-below", "0"])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["per_class"]["background"] == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--pred", ".", "--tiles", "336"], "need --bundle"),
        (["--bundle", "street-lite", "--dense", "value"], "--dense needs --bundle clip:"),
        (["--bundle", "street-lite", "--download"], "need --ckpt or --bundle clip:"),
    ],
)
def test_options_that_nothing_would_look_at(args: list[str], said: str) -> None:
    done = CliRunner().invoke(evaluate, ["--data", "shapes", *args])
    assert done.exit_code == 2
    assert said in done.output
