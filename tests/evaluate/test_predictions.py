"""Predictions of other methods: ids that begin at 0 or at 1, and masks that do not have the size of their frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov2vss.data import FolderVideos
from ov2vss.errors import OV2VSSError
from ov2vss.evaluate.evaluate import evaluate, make_protocol
from ov2vss.evaluate.predictions import shifted_hint, stored_predictions
from tests.conftest import run_program

SIZE = (16, 24)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One video of six frames; three classes in columns that move, and a void row."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "test.txt").write_text("a\n")
    (root / "classes.txt").write_text("road\nsky\ncar\n")
    for kind in ("origin", "mask"):
        (root / "data/a" / kind).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / f"data/a/origin/{i:03d}.png")
        Image.fromarray(_truth(i)).save(root / f"data/a/mask/{i:03d}.png")
    return root


def _truth(i: int) -> np.ndarray:
    mask = np.repeat(np.array([[1, 2, 3]], np.uint8), SIZE[0], 0).repeat(8, 1)
    mask = np.roll(mask, i, 1)
    mask[0] = 255
    return mask


def _write(folder: Path, first: int) -> Path:
    """Predictions that are right but for the first column, with ``first`` as the id of the first class."""
    (folder / "a").mkdir(parents=True)
    for i in range(6):
        ids = np.where(_truth(i) == 255, 1, _truth(i)) - 1 + first
        ids[:, 0] = first
        Image.fromarray(ids.astype(np.uint8)).save(folder / f"a/{i:03d}.png")
    return folder


def test_ids_from_zero_score_what_ids_from_one_score(root: Path, tmp_path: Path) -> None:
    videos = FolderVideos(root, "test")
    setup = make_protocol(videos, "all", None)
    scores = {}
    for first, ids in ((1, "one"), (0, "zero")):
        folder = _write(tmp_path / ids, first)
        scores[ids] = evaluate(videos, setup, stored_predictions(folder, setup.classes, ids))  # type: ignore[arg-type]
    assert scores["one"] == scores["zero"]
    assert scores["one"]["miou"] > 0.9


def test_what_lies_beyond_the_classes_is_unknown_and_never_void(root: Path, tmp_path: Path) -> None:
    videos = FolderVideos(root, "test")
    setup = make_protocol(videos, "all", None)
    (tmp_path / "p" / "a").mkdir(parents=True)
    for i in range(6):
        ids = np.where(_truth(i) == 3, 255, _truth(i) - 1)
        Image.fromarray(np.where(_truth(i) == 255, 0, ids).astype(np.uint8)).save(tmp_path / f"p/a/{i:03d}.png")
    per_class = evaluate(videos, setup, stored_predictions(tmp_path / "p", setup.classes, "zero"))["per_class"]
    assert per_class == {"road": 1.0, "sky": 1.0, "car": 0.0}


def test_the_program_hints_at_ids_that_are_one_off(root: Path, tmp_path: Path) -> None:
    zero, one = _write(tmp_path / "zero", 0), _write(tmp_path / "one", 1)
    done = run_program("ov2vss-eval", "--pred", zero, "--data", root, "--json", "-")
    assert done.returncode == 0, done.stderr
    wrong = json.loads(done.stdout.splitlines()[-1])["miou"]
    assert wrong < 0.05
    done = run_program("ov2vss-eval", "--pred", zero, "--data", root, "--pred-ids", "zero", "--json", "-")
    right = json.loads(done.stdout.splitlines()[-1])["miou"]
    assert right > 0.9
    assert "seem" not in done.stderr
    videos = FolderVideos(root, "test")
    setup = make_protocol(videos, "all", None)
    hint = f"call their first class 0: with --pred-ids zero mIoU is {right:.4f} instead of {wrong:.4f}"
    assert hint in str(shifted_hint(videos, setup, zero, "one", wrong))
    assert "--pred-ids one" in str(shifted_hint(videos, setup, one, "zero", 0.0))
    assert shifted_hint(videos, setup, one, "one", right) is None
    # Bad predictions that are no better the other way are only bad.
    for file in (one / "a").glob("*.png"):
        Image.fromarray(np.full(SIZE, 9, np.uint8)).save(file)
    assert shifted_hint(videos, setup, one, "one", 0.0) is None


def test_masks_of_another_size_are_said_to_be_that(root: Path, tmp_path: Path) -> None:
    for file in (root / "data/a/mask").glob("*.png"):
        Image.open(file).resize((12, 8), Image.Resampling.NEAREST).save(file)
    videos = FolderVideos(root, "test")
    setup = make_protocol(videos, "all", None)
    whole = stored_predictions(_write(tmp_path / "p", 1), setup.classes)
    with pytest.raises(OV2VSSError, match=r"a frame 000: its mask is 8x12, the frame 16x24 .*ov2vss-eval --check"):
        evaluate(videos, setup, whole)
    for file in (tmp_path / "p/a").glob("*.png"):
        Image.open(file).resize((6, 4), Image.Resampling.NEAREST).save(file)
    with pytest.raises(OV2VSSError, match="the prediction is 4x6, the mask 8x12"):
        evaluate(videos, setup, stored_predictions(tmp_path / "p", setup.classes))


def test_what_is_not_there_is_said_at_once(root: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--pred", tmp_path / "no"), "the folder of predictions"),
        (("--ckpt", tmp_path / "no"), "checkpoint"),
        (("--bundle", "no-such"), "is neither a folder nor built in"),
    ):
        done = run_program("ov2vss-eval", *arguments, "--data", root)
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    done = run_program("ov2vss-eval", "--bundle", "street-lite", "--pred-ids", "zero", "--data", root)
    assert done.returncode == 2
