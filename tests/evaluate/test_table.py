"""What ``ov2vss-eval`` prints: short, in groups, the summary where the eye falls."""

import csv
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from ov2vss.evaluate.cli import main
from ov2vss.evaluate.table import as_csv, groups, table


def scores(**per_class: float | None) -> dict:
    return {"miou": 0.5, "vc8": None, "fwiou": 0.25, "frames": 7, "per_class": per_class}


def test_groups_columns_and_a_summary_first_and_last() -> None:
    lines = table(scores(road=0.75, traffic_sign=0.25, zebra=None, sky=0.5), ["sky", "zebra"])
    assert lines[0] == lines[-1] == "mIoU 0.5000  fwIoU 0.2500"
    assert lines[2:9] == [
        "IoU of 2 seen classes",
        "  road          0.7500",
        "  traffic_sign  0.2500",
        "",
        "IoU of 1 unseen classes",
        "  sky           0.5000",
        "",
    ]
    assert lines[9] == "1 classes without pixels in the truth, which count for nothing: zebra"
    assert groups(scores(road=0.75, sky=None), ["sky"]) == {"classes": ["road"], "absent": ["sky"]}
    assert table({"miou": None, "per_class": {}}) == ["no labelled pixel was evaluated"]


def test_csv_has_every_class_and_every_mean() -> None:
    rows = list(csv.reader(as_csv(scores(**{"a, b": 0.75, "c": None}), []).splitlines()))
    assert rows == [
        ["group", "name", "value"],
        ["mean", "miou", "0.5"],
        ["mean", "fwiou", "0.25"],
        ["classes", "a, b", "0.75"],
        ["absent", "c", ""],
    ]


def test_vspw_with_few_classes_fits_a_screen(tmp_path: Path) -> None:
    """124 classes of which three are there: it was 125 lines, of which 121 ended in a dash."""
    ids = np.repeat(np.array([[1, 2, 124]], np.uint8), 8, 0)
    for folder in ("data/a/mask", "pred/a"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(ids).save(tmp_path / folder / "0.png")
    (tmp_path / "data/a/origin").mkdir()
    Image.fromarray(np.zeros((8, 3, 3), np.uint8)).save(tmp_path / "data/a/origin/0.png")
    (tmp_path / "test.txt").write_text("a\n")
    arguments = [f"--data={tmp_path}", f"--pred={tmp_path / 'pred'}", f"--csv={tmp_path / 'scores.csv'}"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) < 40
    assert lines[0] == lines[-1]
    assert lines[0].startswith("mIoU 1.0000  seen mIoU 1.0000  unseen mIoU 1.0000")
    assert "IoU of 2 seen classes" in lines
    assert "IoU of 1 unseen classes" in lines
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["group"] for row in rows].count("absent") == 121
    assert {row["value"] for row in rows if row["group"] in ("seen", "unseen")} == {"1.0"}
