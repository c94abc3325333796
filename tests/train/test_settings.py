"""Settings that are wrong: said in our words, before torch is imported or a word is encoded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ov2vss.data import open_videos
from ov2vss.errors import OV2VSSError
from ov2vss.presets import PRESETS, configure
from ov2vss.train.preflight import check_settings
from tests.conftest import SCRIPTS

WRONG = {
    "iterationz=3": "names no setting; did you mean iterations",
    "width=64": "names no setting; did you mean model.width?",
    "model.widht=64": "names no setting; did you mean model.width",
    "qqqq=1": "names no setting; write key=value with one of: preset, data",
    "model=1": "names no setting",
    "lr": r"--set 'lr' has no value; write --set lr=VALUE",
    "weight_decay=-1": "weight_decay=-1 must be at least 0; correct the value",
    "warmup=-5": "warmup=-5 must be at least 0",
    "poly_power=nan": "poly_power=nan must be a finite number",
    "lr=inf": "lr=inf must be a finite number",
    "lr=0": "lr=0 must be above 0",
    "prompt_sampling=2": "prompt_sampling=2 must be at most 1",
    "iterations=many": "iterations=many must be a whole number",
    "iterations=1.5": "iterations=1.5 must be a whole number",
    "alpha=much": "alpha=much must be a number",
    "flip=maybe": "flip=maybe must be true or false",
    "precision=fp16": "precision=fp16 must be one of: '32-true', 'bf16-mixed', '16-mixed'",
    "model.text_encoder=bert": "model.text_encoder=bert must be one of: 'minilm', 'words', 'clip'",
    "size=64": "size has too few values: number 2 is missing",
    "size=64,64,64": "size has 3 values and takes 2",
    "size=64x9600": "size=64x9600 must be multiples of 32, 64 to 8192",
    "scale=2,0.5": "scale=2,0.5 must rise",
    "model.std=0,1,1": "std=0,1,1 must be above 0",
    "model.cost_width=0": "model.cost_width=0 must be at least 1",
    "seed=-1": "seed=-1 must be at least 0",
    "negatives=-1": "negatives=-1 must be at least 0",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_setting_is_answered_in_our_words(override: str) -> None:
    with pytest.raises(OV2VSSError, match=WRONG[override]) as caught:
        configure("tiny", [override])
    assert not {"Input should", "pydantic", "validation", "Value error"} & {str(caught.value)}
    assert "Input should" not in str(caught.value)


def test_no_loss_is_no_training() -> None:
    with pytest.raises(OV2VSSError, match="alpha, beta and gamma are all 0"):
        configure("tiny", ["alpha=0", "beta=0", "gamma=0"])


def test_every_number_of_the_settings_has_a_lower_end() -> None:
    """No setting takes -1e9, and none takes nan: each number is refused by its own name."""
    for fields, prefix in ((PRESETS["tiny"].model_dump(), ""), (PRESETS["tiny"].model.model_dump(), "model.")):
        for name, value in fields.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                for wrong in ("-1000000000", "nan"):
                    with pytest.raises(OV2VSSError, match=name):
                        configure("tiny", [f"{prefix}{name}={wrong}"])


def test_a_preset_that_is_nearly_right() -> None:
    with pytest.raises(OV2VSSError, match=r"did you mean ov2vss-r101\? Else choose one of"):
        configure("ov2vss-r10", [])


def test_files_of_settings_are_looked_at_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "no-weights.pth").write_bytes(b"hello")
    (tmp_path / "twice.txt").write_text("road\nroad\n")
    for override, message in (
        (f"backbone_weights={tmp_path}/absent.pth", "do not exist; name a file, or one of: none, timm"),
        (f"backbone_weights={tmp_path}/no-weights.pth", "cannot be read as weights"),
        ("wordings=streets", "wordings 'streets' do not exist; name a file, or one of: .*'street'"),
        (f"wordings={tmp_path}/twice.txt", "road"),
    ):
        with pytest.raises(OV2VSSError, match=message):
            check_settings(configure("lite", [override]))
    with pytest.raises(OV2VSSError, match="CLIP weights absent.pt do not exist; check --clip-weights"):
        check_settings(configure("ov2vss-r101", ["backbone_weights=none"], clip_weights="absent.pt"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "iterationz=3"),
        ("--data", "no-such-folder"),
        ("--set", "backbone_weights=no.pth"),
        ("--preset", "ov2vss-r101", "--data", "shapes", "--clip-weights", "no.pt", "--set", "backbone_weights=none"),
    ],
)
def test_a_typo_is_answered_without_torch(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A module called torch that cannot be imported stands in the way: nothing may ask for it."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "ov2vss-train"), *arguments],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (2 if "iterationz=3" in arguments else 1)
    assert done.stderr.startswith("error: ") or "\nerror: " in done.stderr
    assert "torch was imported" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_hold_out_is_honoured_for_generated_clips_too() -> None:
    """Unset they hold out, as they always did; ``hold_out_unseen=false`` shows all compositions in training."""
    assert configure("tiny", []).holds_out
    assert not configure("tiny", ["hold_out_unseen=false"]).holds_out
    assert not configure("tiny", [], data="folder").holds_out
    assert configure("ov2vss-r101", [], data="folder").holds_out
    for hold_out in (True, False):
        videos = open_videos("shapes", "train", hold_out=hold_out)
        shown = {k for v in range(40) for k in np.unique(videos.mask(v, 0)).tolist()}
        assert bool(shown & {k + 1 for k in videos.unseen}) is not hold_out
