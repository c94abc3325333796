"""The comparison of arms that train on the past: every arm trains on what it says, and the table compares with its
control."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import past

from ov2vss import checkpoint
from ov2vss.presets import configure
from ov2vss.train.loop import Trainer
from tests.conftest import write_video
from tests.runtime.stream.test_propagation import picture

SMALL = ["batch=2", "size=64x96", "crop=64x96", "workers=0", "gap=1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A labelled clip of ten frames, a film, and a run that the arms start from."""
    root = tmp_path_factory.mktemp("past")
    for part in ("origin", "mask"):
        (root / "set" / "data" / "drive" / part).mkdir(parents=True)
    for t in range(10):
        cv2.imwrite(str(root / f"set/data/drive/origin/{t:03d}.jpg"), picture(4 * t))
        mask = 1 + (np.indices((96, 160))[1] < 100 - 4 * t).astype(np.uint8)
        cv2.imwrite(str(root / f"set/data/drive/mask/{t:03d}.png"), mask)
    for split in ("train", "val"):
        (root / "set" / f"{split}.txt").write_text("drive\n")
    (root / "set" / "classes.txt").write_text("wall\nfloor\n")
    write_video(root / "film.mp4", [picture(4 * t) for t in range(8)])
    config = configure("tiny", [*SMALL, "iterations=1", "per_frame_iterations=1"], data=str(root / "set"))
    Trainer(config, root / "init").fit()
    return {"set": root / "set", "film": root / "film.mp4", "init": root / "init", "out": root / "out"}


def test_arms_and_their_control_from_one_checkpoint(world: dict[str, Path]) -> None:
    sets = [x for setting in SMALL for x in ("--set", setting)]
    arms = ["control", "a", "b", "c"]
    command = ["--init", world["init"], "--data", world["set"], "--film", world["film"], "--watch", world["film"]]
    command += ["--out", world["out"], "--iterations", "2", "--seed", "0", "--json", world["out"] / "all.json"]
    command += [x for arm in arms for x in ("--arm", arm)] + sets
    done = CliRunner().invoke(past.main, [str(x) for x in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((world["out"] / "all.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == arms
    for row in rows:
        run = checkpoint.find(world["out"] / f"{row['arm']}-0-2")
        assert run.state["step"] == 2
        assert run.run.train.init == str(checkpoint.find(world["init"]).folder.resolve())
        assert run.run.train.moving == 0.5
        assert bool(run.run.train.film) == (row["arm"] == "a")
        assert run.run.train.model.local_memory == (row["arm"] == "c")
        assert 0 <= row["stream"]["miou"] <= 1
        assert row["flips"] >= 0
    before = (world["out"] / "a-0-2.json").stat().st_mtime_ns
    again = CliRunner().invoke(past.main, [str(x) for x in command], catch_exceptions=False)
    assert again.output == done.output
    assert (world["out"] / "a-0-2.json").stat().st_mtime_ns == before


def test_changes_are_against_the_control_of_the_same_seed() -> None:
    def row(arm: str, seed: int, miou: float, flips: float, edges: float) -> dict:
        stream = {"miou": miou, "boundary_f": edges}
        return {"arm": arm, "seed": seed, "seconds": 60, "stream": stream, "per frame": {"miou": 0.5}, "flips": flips}

    rows = [row("control", 0, 0.5, 2, 0.6), row("control", 1, 0.5, 4, 0.6), row("a", 1, 0.51, 3, 0.59)]
    last = list(past.table(rows))[-1]
    assert last == "| a | 1 | 1.0 | 51.00 | 50.00 | +1.00 | 3.000 | -25.0 % | 59.00 (-1.00) |"


def test_the_time_of_the_control_becomes_iterations(world: dict[str, Path], tmp_path: Path) -> None:
    config = past.settings(str(world["init"]), str(world["set"]), "control", 2, 0, (), tuple(SMALL))
    found = past.iterations_in(10, config, tmp_path / "speed")
    assert 50 < found < 60_000
