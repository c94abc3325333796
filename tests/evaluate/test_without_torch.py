"""Scores on the machine where the bundle will run: there is no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TORCH = ("torch", "torchvision", "timm", "open_clip", "transformers", "lightning_fabric", "onnx", "huggingface_hub")


def without_torch(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code where importing torch, or what is built on it, fails."""
    blocked = f"import sys\nfor name in {TORCH}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", blocked + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def scores(*args: str | Path) -> dict:
    done = without_torch(f"from ov2vss.evaluate.cli import main\nmain({[*map(str, args), '--json', '-']!r})")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """One video of two frames in the VSPW layout: the left half is a, the right half b."""
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "test.txt").write_text("v\n")
    mask = np.repeat([[1, 2]], 8, axis=1).repeat(16, axis=0).astype(np.uint8)
    for folder in ("origin", "mask"):
        (tmp_path / "data/v" / folder).mkdir(parents=True)
    for frame in ("0", "1"):
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / f"data/v/origin/{frame}.jpg")
        Image.fromarray(mask).save(tmp_path / f"data/v/mask/{frame}.png")
    return tmp_path


def test_the_package_imports_without_torch() -> None:
    done = without_torch("import ov2vss, ov2vss.data, ov2vss_export\nprint(ov2vss.__version__)")
    assert done.returncode == 0, done.stderr


def test_stored_predictions_are_scored(drawn: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions/v"
    predictions.mkdir(parents=True)
    wrong = np.full((16, 16), 1, np.uint8)
    wrong[:, 12:] = 2  # a quarter of the picture is called a and is b
    for frame in ("0", "1"):
        Image.fromarray(wrong).save(predictions / f"{frame}.png")
    found = scores("--pred", predictions.parent, "--data", drawn)
    assert found["per_class"] == {"a": pytest.approx(8 / 12), "b": pytest.approx(4 / 8)}
    assert found["miou"] == pytest.approx((8 / 12 + 4 / 8) / 2)
    assert found["pacc"] == pytest.approx(12 / 16)


def test_a_bundle_is_scored_as_with_torch(bundle: Path, drawn: Path) -> None:
    args = ("--bundle", bundle, "--data", drawn, "--vocab", "red circle; background")
    found = scores(*args)
    with_torch = subprocess.run(
        [Path(sys.executable).with_name("ov2vss-eval"), *map(str, args), "--json", "-"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert found == json.loads(with_torch.stdout.splitlines()[-1])
    assert found["frames"] == 2
