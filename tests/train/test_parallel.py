"""Several processes, accumulated parts and fp16: the same step as one process makes in one piece."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ov2vss import checkpoint
from ov2vss.data.clips import Steps
from ov2vss.errors import OV2VSSError
from ov2vss.presets import configure
from ov2vss.train.loop import Trainer
from tests.conftest import SCRIPTS
from tests.train.test_training import FAST

SCRIPT = Path(__file__).parent / "first_step.py"
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of noise whose masks are void to very different parts."""
    root = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").write_text("a\nb\nc\n")
    (root / "classes.txt").write_text("red circle\nblue square\nbackground\n")
    for video in "abc":
        for kind in ("origin", "mask"):
            (root / "data" / video / kind).mkdir(parents=True)
        for i in range(6):
            image = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
            mask = rng.integers(1, 4, (64, 96)).astype(np.uint8)
            mask[: int(rng.integers(0, 62))] = 255
            Image.fromarray(image).save(root / "data" / video / "origin" / f"{i:05d}.png")
            Image.fromarray(mask).save(root / "data" / video / "mask" / f"{i:05d}.png")
    return root


def _first_step(command: list[str], data: Path, out: Path, accumulate: int) -> tuple[dict[str, torch.Tensor], dict]:
    done = subprocess.run(
        [*command, str(SCRIPT), str(data), str(out), str(accumulate)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(out, "pt") as file:
        return load_file(out), file.metadata()


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param((("both", TWO, 2),), id="both"),
        pytest.param((("two", TWO, 1), ("parts", [sys.executable], 2)), id="one at a time", marks=pytest.mark.slow),
    ],
)
def test_gradients_do_not_depend_on_processes_and_parts(
    uneven: Path, tmp_path: Path, ways: tuple[tuple[str, list[str], int], ...]
) -> None:
    """The halves of the batch hold different numbers of valid pixels: a mean of means would be another gradient."""
    whole, told = _first_step([sys.executable], uneven, tmp_path / "one.safetensors", 1)
    assert told["world"] == "1"
    largest = max(float(g.abs().max()) for g in whole.values())
    assert largest > 1e-3
    for name, command, accumulate in ways:
        grads, half = _first_step(command, uneven, tmp_path / f"{name}.safetensors", accumulate)
        assert half["world"] == ("2" if command is TWO else "1")
        if command is TWO:
            share = int(half["valid"]) / int(told["valid"])
            assert abs(share - 0.5) > 0.05, "the test's halves are too equal to show anything"
        assert grads.keys() == whole.keys()
        assert max(float((grads[k] - whole[k]).abs().max()) for k in whole) < 1e-5


def test_every_sample_is_seen_once_whatever_the_number_of_processes() -> None:
    expected = list(range(24, 48))
    for accumulate, world in ((1, 1), (2, 1), (1, 4), (3, 2), (2, 4)):
        drawn = [list(Steps(3, 6, 8 if world != 2 else 6, accumulate, world, r)) for r in range(world)]
        whole = sorted(i for part in drawn for i in part)
        assert whole == (expected if world != 2 else list(range(18, 36)))
        assert len({len(part) for part in drawn}) == 1
    assert list(Steps(0, 1, 8, 2, 2, 1)) == [2, 3, 6, 7]


def test_the_program_under_torchrun(uneven: Path, tmp_path: Path) -> None:
    """Trains, validates with shared videos, writes one run folder, and prints one report."""
    settings = [*FAST[1:], "iterations=4", "per_frame_iterations=2", "save_every=2", "validate_every=4", "crop=64x64"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [str(SCRIPTS / "ov2vss-train"), "--data", str(uneven), "--out", str(tmp_path / "run"), "--json"]
    for setting in [*settings, "size=64x96", "gap=1"]:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(reports) == 1
    report = json.loads(reports[0])
    assert report["test"]["frames"] == 18
    rows = list(csv.reader((tmp_path / "run" / "log.csv").open()))
    assert [row[0] for row in rows] == ["iteration", "4"]
    state = checkpoint.find(tmp_path / "run").state
    assert state["step"] == 4
    # The same checkpoint scored by one process.
    scores = subprocess.run(
        [str(SCRIPTS / "ov2vss-eval"), "--ckpt", str(tmp_path / "run"), "--data", str(uneven), "--json", "-"],
        capture_output=True,
        text=True,
        check=False,
    )
    alone = json.loads(scores.stdout.splitlines()[-1])
    assert alone["frames"] == 18
    assert alone["miou"] == pytest.approx(report["test"]["miou"], abs=2e-3)


def test_a_batch_that_cannot_be_divided(uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Three:
        world_size = 3

        def launch(self) -> None: ...

    monkeypatch.setattr("ov2vss.train.loop.make_fabric", lambda config: Three())
    with pytest.raises(OV2VSSError, match="batch=4 cannot be divided over 3 processes and 2 accumulated parts"):
        Trainer(configure("tiny", ["batch=4", "accumulate=2"], data=str(uneven)), tmp_path / "run")


def test_mixed_precision_trains_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ov2vss.train.device.has_fast_bf16", lambda: True)
    precision = "16-mixed" if torch.cuda.is_available() else "bf16-mixed"
    config = configure("tiny", ["iterations=4", *FAST, f"precision={precision}", "save_every=2"])
    Trainer(config, tmp_path / "whole").fit()

    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, tmp_path / "parts").fit(stop)
    resumed = Trainer(config, tmp_path / "parts", resume=True)
    assert resumed.start == 2
    resumed.fit()
    a, b = (checkpoint.find(tmp_path / name, "last") for name in ("whole", "parts"))
    one, two = a.weights(), b.weights()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert a.state.get("scaler") == b.state.get("scaler")


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 can be used here")
def test_fp16_is_not_replaced_silently(tmp_path: Path) -> None:
    with pytest.raises(OV2VSSError, match="needs a CUDA GPU"):
        Trainer(configure("tiny", ["precision=16-mixed"]), tmp_path / "run")


def test_labels_of_several_frames_are_targets_of_their_own(tmp_path: Path) -> None:
    """The loss with four labelled frames is the mean over the pixels of four clips made by hand."""
    from ov2vss.train.loss import loss_sum

    config = configure("tiny", ["labelled_frames=4", "iterations=2", "batch=1", *FAST[2:], "per_frame_iterations=0"])
    trainer = Trainer(config, tmp_path / "run")
    trainer.raw_model.eval()
    batch = next(iter(trainer._loader(False, 0, 1)))
    text = trainer.vocabulary.draw(np.random.default_rng(0))
    clip, labels = batch["clip"], batch["labels"]
    assert labels.shape[:2] == (1, 4)
    with torch.no_grad():
        prediction, flat = trainer._predict(batch, text, single=False)
        got = loss_sum(prediction, flat, 1.0, 0.4)
        expected = torch.zeros(())
        for t, indices in enumerate([(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 2, 3)]):
            one = trainer.raw_model(clip[:, list(indices)], batch["distant"], text)
            expected = expected + loss_sum(one, labels[:, t], 1.0, 0.4)
    assert float(got) == pytest.approx(float(expected), rel=1e-4)
