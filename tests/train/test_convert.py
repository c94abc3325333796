"""Masks of labelling tools become data sets, and what does not fit is said."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ov2vss.data import FolderVideos
from ov2vss.data.check import check_data, require_sound
from ov2vss.data.convert import main


def frames(folder: Path, count: int = 5, size: tuple[int, int] = (20, 30)) -> Path:
    folder.mkdir(parents=True)
    for k in range(count):
        Image.fromarray(np.full((*size, 3), 40 * k, np.uint8)).save(folder / f"{k:03d}.jpg")
    return folder


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def masks(folder: Path, values: np.ndarray, count: int = 5) -> Path:
    folder.mkdir(parents=True)
    for k in range(count):
        Image.fromarray(values).save(folder / f"{k:03d}.png")
    return folder


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    """A pet in white on black, as DAVIS and Label Studio have it: 1 = dog, 2 = background; the first frames train."""
    values = np.zeros((20, 30), np.uint8)
    values[5:9, 7:12] = 255
    source, labels, data = frames(tmp_path / "f"), masks(tmp_path / "m", values), tmp_path / "set"
    for name, split, part in (("first", "train", ":2"), ("rest", "val", "2:")):
        done = convert(data, "--name", name, "--split", split, "--part", part, "--frames", source, "--masks", labels,
                       "--ids", "255=dog; 0=background")  # fmt: skip
        assert done.exit_code == 0, done.output
    assert (data / "classes.txt").read_text() == "dog\nbackground\n"
    train, val = FolderVideos(data, "train"), FolderVideos(data, "val")
    assert (train.length(0), val.length(0)) == (2, 3)
    assert val.frame_name(0, 0) == "002"
    assert np.array_equal(train.mask(0, 1), np.where(values == 255, 1, 2))
    require_sound(check_data(str(data)))


def test_colours_of_cvat(tmp_path: Path) -> None:
    rgb = np.zeros((20, 30, 3), np.uint8)
    rgb[:5], rgb[5:9] = (250, 50, 83), (52, 209, 183)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83::\ncar:52,209,183::\n"
    )
    arguments = ("--frames", frames(tmp_path / "f"), "--masks", masks(tmp_path / "m", rgb, 2), "--labelmap")
    done = convert(tmp_path / "set", "--name", "a", *arguments, tmp_path / "labelmap.txt")
    assert done.exit_code == 0, done.output
    assert "5 frames, 2 with masks; classes: 2" in done.stdout
    found = FolderVideos(tmp_path / "set", "train")
    assert found.labelled(0) == [0, 1]
    assert np.unique(found.mask(0, 0), return_counts=True)[1].tolist() == [11 * 30, 5 * 30, 4 * 30]
    more = convert(tmp_path / "set", "--name", "b", *arguments, tmp_path / "labelmap.txt", "--background", "wall")
    assert more.exit_code == 0, more.output
    assert (tmp_path / "set/classes.txt").read_text() == "road\ncar\nwall\n"  # old names keep their ids
    assert (tmp_path / "set/train.txt").read_text() == "a\nb\n"


def test_polygons_of_labelme(tmp_path: Path) -> None:
    folder = frames(tmp_path / "f", 2)
    shapes = [
        {"label": "cat", "points": [[2, 3], [10, 3], [10, 8], [2, 8]], "shape_type": "polygon"},
        {"label": "dog", "points": [[20, 15], [12, 10]], "shape_type": "rectangle"},
    ]
    for k in range(2):
        content = {"imageHeight": 20, "imageWidth": 30, "shapes": shapes, "imagePath": f"{k:03d}.jpg"}
        (folder / f"{k:03d}.json").write_text(json.dumps(content))
    done = convert(tmp_path / "set", "--name", "a", "--frames", folder, "--masks", folder, "--labelme",
                   "--background", "floor")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "set/classes.txt").read_text() == "floor\ncat\ndog\n"
    mask = FolderVideos(tmp_path / "set", "train").mask(0, 0)
    assert (mask[5, 6], mask[12, 16], mask[0, 0]) == (2, 3, 1)
    assert (mask == 2).sum() == 9 * 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ids", "255:dog"), "names no value"),
        (("--ids", "7=dog"), r"holds the values \[0, 255\], none of them named"),
        (("--ids", "255=dog", "--labelme"), "exactly one of"),
        (("--ids", "255=dog", "--background", "x"), "--background goes with"),
        (("--labelmap", "nowhere.txt"), "does not exist"),
        (("--ids", "255=dog", "--part", "a:b"), "no FROM:TO"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(tmp_path: Path, arguments: tuple, said: str) -> None:
    values = np.zeros((20, 30), np.uint8)
    values[5:9] = 255
    source, labels = frames(tmp_path / "f", 2), masks(tmp_path / "m", values, 2)
    done = convert(tmp_path / "set", "--name", "a", "--frames", source, "--masks", labels, *arguments)
    assert done.exit_code in (1, 2)
    assert re.search(said, done.stderr), done.stderr
    assert not list(tmp_path.glob("set/*"))


def test_masks_of_another_size_or_name(tmp_path: Path) -> None:
    source = frames(tmp_path / "f", 2)
    small = masks(tmp_path / "m", np.full((10, 15), 255, np.uint8), 2)
    done = convert(tmp_path / "set", "--name", "a", "--frames", source, "--masks", small, "--ids", "255=dog")
    assert done.exit_code == 1
    assert "15x10, its frame 30x20" in done.stderr
    for path in small.iterdir():
        path.rename(small / f"x{path.name}")
    done = convert(tmp_path / "set", "--name", "a", "--frames", source, "--masks", small, "--ids", "255=dog")
    assert "no .png named like a frame" in done.stderr
