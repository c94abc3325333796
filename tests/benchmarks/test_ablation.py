"""The ablation script on a small folder: trains, scores, reports, and does no work twice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.train.test_data import write_folder
from tests.train.test_training import FAST

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablation.py"
SETTINGS = [*FAST[1:], "iterations=4", "per_frame_iterations=2", "crop=64x64", "size=64x96", "gap=1"]


def run(*args: str | Path, settings: list[str] = SETTINGS) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.whole
def test_a_table_is_trained_once_and_scored_again_on_request(tmp_path: Path) -> None:
    data, out = tmp_path / "set", tmp_path / "out"
    data.mkdir()
    for split in ("train", "val", "test"):
        write_folder(data, {f"{split}-a": 10}, unseen=["car"], split=split)
    words = tmp_path / "words.txt"
    words.write_text("street\nthe sky\nautomobile\n")
    args = ["--table", "zero-shot", "--preset", "tiny", "--data", data, "--out", out, "--words", words]
    done = run(*args, "--report", tmp_path / "report.md")
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report.md").read_text()
    assert report.strip() == done.stdout.strip()

    # The report's figures are those of ov2vss-eval, whose own are tested elsewhere.
    row = out / "zero-shot"
    kept = {k: v["scores"] for k, v in json.loads((row / "scores.json").read_text()).items()}
    assert set(kept) == {
        "test",
        "val",
        "test per frame",
        "val per frame",
        "test words",
        "test unseen",
        "test words unseen",
    }
    assert kept["test unseen"]["vocabulary"] == 1
    cells = re.search(r"\| names \|(.*)\|\n", report)[1].split("|")
    expected = [kept["test"][k] for k in ("miou", "seen_miou", "unseen_miou", "harmonic_miou")]
    expected.append(kept["test unseen"]["miou"])
    assert [c.strip() for c in cells] == [f"{v:.3f}" for v in expected]
    assert "iterations=4" in report

    # Again: nothing is trained; other gaps score the videos that they concern again.
    weights = next((row / "run").glob("step-*/*.safetensors"))
    before = {p: p.stat().st_mtime_ns for p in (weights, row / "row.json")}
    done = run(*args, "--gaps", "2", "3")
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    again = json.loads((row / "scores.json").read_text())
    assert again["test"]["arguments"][1] == 2
    assert again["val"] == {"arguments": ["val", 3], "scores": kept["val"]}

    # Other settings are another row.
    done = run(*args, settings=[*SETTINGS, "lr=1e-4"])
    assert done.returncode == 1
    assert "holds a row with other settings" in done.stderr


def test_what_cannot_be_scored_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As VSPW comes: masks in train and val, none in test. Without any, or with a typo, nothing is trained."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    ablation = import_module("ablation")
    trained, scored = [], []

    def train(folder: Path, preset: str, data: str, settings: list[str]) -> float:
        trained.append(folder.name)
        folder.mkdir(parents=True)
        row = {"preset": preset, "settings": settings, "seconds": 60.0, "revision": "abc"}
        (folder / "row.json").write_text(json.dumps(row))
        return 60.0

    def score(run: Path, data: str, split: str, gap: int, *more: str) -> dict:
        scored.append(split)
        return {"miou": 0.5, "fwiou": 0.5, "vc8": None, "vc16": None, "per_class": {"street": 0.5}}

    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "score", score)
    data = tmp_path / "set"
    data.mkdir()
    for split in ("train", "val", "test"):
        write_folder(data, {f"{split}-a": 3}, split=split)
    shutil.rmtree(data / "data/test-a/mask")
    done = CliRunner().invoke(ablation.main, ["--data", str(data), "--out", str(tmp_path / "out"), "--table", "frames"])
    assert done.exit_code == 0, done.output
    assert trained == ["labels-4", "labels-1", "full"]
    assert set(scored) == {"val"}
    assert "IoU per class on val" in done.stdout
    shutil.rmtree(data / "data/val-a/mask")
    for folder in (data, tmp_path / "typo"):
        done = CliRunner().invoke(ablation.main, ["--data", str(folder), "--out", str(tmp_path / "other")])
        assert done.exit_code == 1
        assert "masks neither in test nor in val" in done.stderr
        assert len(trained) == 3
        assert not (tmp_path / "other").exists()


def test_a_typo_leaves_nothing_that_refuses_the_corrected_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that never began may have other settings; one with a checkpoint may not."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    ablation = import_module("ablation")
    row, codes = tmp_path / "full", [1, 0]

    def program(command: list[str], **_: object) -> subprocess.CompletedProcess:
        code = codes.pop(0)
        if not code:
            (row / "run" / "step-00000001").mkdir(parents=True)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(ablation.subprocess, "run", program)
    monkeypatch.setattr(ablation, "revision", lambda: "r")
    with pytest.raises(ablation.OV2VSSError, match="ended with exit code 1"):
        ablation.train(row, "tiny", "camvidd", [])
    assert not (row / "row.json").exists()
    ablation.train(row, "tiny", "camvid", [])
    assert json.loads((row / "row.json").read_text())["data"] == "camvid"
    with pytest.raises(ablation.OV2VSSError, match="holds a row with other settings"):
        ablation.train(row, "tiny", "another", [])
