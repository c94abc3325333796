"""Ten data sets, each with one defect that people's masks have: what the check says, and what training does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov2vss.data.check import check_data
from tests.conftest import run_program
from tests.train.test_data import write_cityscapes

SIZE = (64, 96)
CLASSES = ("background", "dog", "cat")


def _folder(root: Path, ids: Callable[[int], np.ndarray], splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Two videos of four frames a split; ``ids(i)`` is the mask of frame i."""
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for split in splits:
        videos = [f"{split}-{v}" for v in "ab"]
        (root / f"{split}.txt").write_text("\n".join(videos))
        for video in videos:
            for kind in ("origin", "mask"):
                (root / "data" / video / kind).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(np.full((*SIZE, 3), 40 * i, np.uint8)).save(root / f"data/{video}/origin/{i:04d}.jpg")
                Image.fromarray(ids(i)).save(root / f"data/{video}/mask/{i:04d}.png")
    return root


def _good(i: int) -> np.ndarray:
    """Half background, a quarter dog, an eighth cat, an eighth void."""
    mask = np.ones(SIZE, np.uint8)
    mask[:32, :48], mask[32:, :24], mask[32:, 24:48] = 2, 3, 0
    return mask


def _binary(i: int) -> np.ndarray:
    return np.where(_good(i) == 2, 255, 0).astype(np.uint8)


def _change(root: Path, change: Callable[[Path], None], which: str = "data/*/mask/*.png") -> None:
    for path in sorted(root.glob(which)):
        change(path)


def _smooth(path: Path) -> None:
    mask = np.asarray(Image.open(path))
    ramp = np.linspace(0, 250, mask.size).reshape(mask.shape).astype(np.uint8)
    Image.fromarray(np.where(mask == 0, ramp, mask)).save(path)


DEFECTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "0/255 masks": (lambda r: _folder(r, _binary), "error", "train: nothing is labelled: masks are 0/255, and both"),
    "ids outside of the list": (
        lambda r: _folder(r, lambda i: np.where(_good(i) == 3, 7, _good(i)).astype(np.uint8)),
        "warning",
        "train: masks hold ids beyond the 3 classes, which are void: 7 (12.5 %)",
    ),
    "a class without pixels": (
        lambda r: _folder(r, lambda i: np.where(_good(i) == 3, 1, _good(i)).astype(np.uint8)),
        "warning",
        "train: 1 of 3 classes have no pixel: cat",
    ),
    "one class alone": (
        lambda r: _folder(r, lambda i: np.where(_good(i) == 2, 2, 0).astype(np.uint8)),
        "error",
        "train: only one of 3 classes is labelled, 'dog': nothing can be told apart",
    ),
    "half-size masks": (
        lambda r: _change(_folder(r, _good), lambda p: Image.open(p).resize((48, 32), 0).save(p)),
        "error",
        "8 of 8 masks have another size than their frame, such as train-a/0000.png, train-a/0001.png: 48 x 32 pixels "
        "for a frame of 96 x 64",
    ),
    "RGB masks": (
        lambda r: _change(_folder(r, _good), lambda p: Image.open(p).convert("RGB").save(p)),
        "error",
        "train: 8 of 8 masks are colours, not ids (RGB), such as train-a/0000.png",
    ),
    "0 used as a class": (
        lambda r: _folder(r, lambda i: np.where(_good(i) == 0, 1, _good(i) - 1).astype(np.uint8)),
        "warning",
        "train: ids seem to begin at 0: 0 has 50.0 % of the pixels and is void, and id 3 ('cat') is nowhere",
    ),
    "frames without masks": (
        lambda r: _change(_folder(r, _good), Path.unlink),
        "error",
        "train: none of 8 frames has a mask",
    ),
    "masks under other names": (
        lambda r: _change(_folder(r, _good), lambda p: p.rename(p.with_name(f"{p.stem}_mask.png"))),
        "error",
        "no frame has a mask, but there are 8 other files, such as mask/0000_mask.png; masks are PNG files named as",
    ),
    "overlapping splits": (
        lambda r: (_folder(r, _good) / "val.txt").write_text("train-b\nval-a\n"),
        "warning",
        "train: 1 videos are in val too, whose scores then say little: train-b",
    ),
    "smoothed masks": (
        lambda r: _change(_folder(r, _good), _smooth),
        "warning",
        "as after smoothing: ",
    ),
    "16-bit masks": (
        lambda r: _change(_folder(r, _good), lambda p: Image.fromarray(_good(0).astype(np.uint16)).save(p)),
        "error",
        "8 of 8 masks are more than 8 bits a pixel (I;16)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_is_named(defect: str, tmp_path: Path) -> None:
    make, level, message = DEFECTS[defect]
    make(tmp_path / "set")
    findings = check_data(str(tmp_path / "set")).findings
    assert any(message in str(f) and f.level == level for f in findings), [str(f) for f in findings]


def test_a_sound_set_has_no_findings_and_the_right_counts(tmp_path: Path) -> None:
    report = check_data(str(_folder(tmp_path / "set", _good)))
    assert report.findings == []
    pixels = 8 * SIZE[0] * SIZE[1]
    for split in report.splits:
        assert split.pixels[:5].tolist() == [pixels // 8, pixels // 2, pixels // 4, pixels // 8, 0]
        assert split.shown[:5].tolist() == [8, 8, 8, 8, 0]
        assert (split.frames, split.masks, split.looked) == (8, 8, 8)
    assert check_data("shapes").findings == []


def test_held_out_classes_do_not_count_as_labelled(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", lambda i: np.where(_good(i) == 2, 2, 0).astype(np.uint8))
    (root / "unseen.txt").write_text("dog\n")
    errors = check_data(str(root), hold_out_unseen=True).errors
    assert [str(e).split(";")[0] for e in errors] == ["train: only held-out classes have pixels"]


def test_cityscapes_masks_are_counted_by_its_table(tmp_path: Path) -> None:
    report = check_data(str(write_cityscapes(tmp_path, "Ids")), splits=("val",))
    ids = np.flatnonzero(report.splits[0].pixels)
    assert set(ids.tolist()) <= {*range(1, 20), 255}
    assert report.splits[0].pixels.sum() > 0
    assert not report.errors


def test_the_program_prints_a_table_and_fails_where_training_would_be_pointless(tmp_path: Path) -> None:
    good, bad = _folder(tmp_path / "good", _good), _folder(tmp_path / "bad", _binary)
    done = run_program("ov2vss-train", "--check", "--data", good, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "  2 dog " in done.stdout
    assert "nothing is wrong with these masks" in done.stdout
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sound"]
    assert report["splits"]["train"]["pixels"]["dog"] == 8 * 32 * 48
    for arguments in (("--check",), ("--out", tmp_path / "run")):
        done = run_program("ov2vss-train", *arguments, "--data", bad, cwd=tmp_path)
        assert done.returncode == 1
        assert "nothing is labelled: masks are 0/255" in done.stdout + done.stderr
        assert not (tmp_path / "run").exists()
    done = run_program("ov2vss-eval", "--check", "--data", bad, cwd=tmp_path)
    assert done.returncode == 1
    assert "write id k for line k of the class list: 1 for 'background', 2 for 'dog'" in done.stdout


def test_a_thousand_frames_take_seconds(tmp_path: Path) -> None:
    """1,000 masks of 480 x 854: under ten seconds of processor time, decoding them included."""
    root = _folder(tmp_path / "set", _good, ("train",))
    rng = np.random.default_rng(0)
    blocks = rng.integers(1, 4, (30, 61)).astype(np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((16, 14), np.uint8))).save(tmp_path / "mask.png")
    Image.new("RGB", (854, 480)).save(tmp_path / "frame.jpg")
    for kind, end in (("origin", "jpg"), ("mask", "png")):
        folder = root / "data/train-a" / kind
        for i in range(1000):
            (folder / f"{i:04d}.{end}").unlink(missing_ok=True)
            (folder / f"{i:04d}.{end}").hardlink_to(tmp_path / f"{'frame' if kind == 'origin' else 'mask'}.{end}")
    (root / "train.txt").write_text("train-a\n")
    began = time.process_time()
    report = check_data(str(root))
    assert report.splits[0].looked == 1000
    assert not report.errors
    assert time.process_time() - began < 10
    assert check_data(str(root), quick=True).splits[0].looked == 300
