"""Frames and masks of labelling tools -> a data set in the VSPW layout; ``python -m ov2vss.data.convert -h``.

What it reads: PNG masks with one value a class (``--ids "255=dog; 0=background"``), coloured PNG masks with CVAT's or
VOC's ``labelmap.txt``, and labelme's JSON files. The data set may exist: names that it has keep their ids, new ones are
added at the end of ``classes.txt``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ov2vss.data.images import IMAGES, read_rgb
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.atomic_files import write_text
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.console import CONTEXT, program

Mask = npt.NDArray[np.uint8]
Namer = Callable[[str], int]
"""Id of a class name, 0 for pixels without a label; a new name gets the next id."""
UNLABELLED = ("", "void", "unlabelled", "unlabeled")
"""What a name may be where pixels have no label."""


class Classes:
    """Names of a data set and their ids, which are the lines of ``classes.txt``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = [", ".join(e) for e in Vocabulary.from_file(file).entries] if file.is_file() else []

    def __call__(self, name: str) -> int:
        name = " ".join(name.split())
        if name.casefold() in UNLABELLED:
            return 0
        names = [line.split(",")[0] for line in self.lines]
        if name not in names:
            if len(names) == 254:
                raise OV2VSSError(f"{name!r} would be class 255", "8-bit masks hold 254 classes")
            self.lines.append(name)
            names.append(name)
        return names.index(name) + 1

    def save(self) -> None:
        Vocabulary.from_lines(self.lines, "the names of the masks")
        write_text(self.file, "\n".join(self.lines) + "\n")


def parse_ids(text: str, classes: Namer) -> Mask:
    """``"255=dog; 0=background"`` -> table [256] from values in the masks to ids; values without a name are void."""
    table = np.zeros(256, np.uint8)
    for part in text.split(";"):
        value, equals, name = part.strip().partition("=")
        if not equals or not value.strip().isdigit() or int(value) > 255:
            raise OV2VSSError(f"--ids {part.strip()!r} names no value", 'write --ids "255=dog; 0=background"')
        table[int(value)] = classes(name)
    return table


def parse_labelmap(file: Path, classes: Namer, background: str) -> dict[tuple[int, int, int], int]:
    """CVAT's ``labelmap.txt``: lines ``name:r,g,b:parts:actions``; colour -> id.

    Its ``background`` is what nobody drew on: unlabelled, unless a name is given for it.
    """
    colours = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.split(":")[0].split(",")
        if len(values) != 3 or not all(v.strip().isdigit() and int(v) < 256 for v in values):
            raise OV2VSSError(f"{file}, line {number}: {line!r} is no name:r,g,b", "give CVAT's labelmap.txt")
        r, g, b = (int(v) for v in values)
        colours[r, g, b] = classes(background if name == "background" else name)
    return colours


def from_values(path: Path, table: Mask) -> Mask:
    """A mask of one channel through the table."""
    with Image.open(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise OV2VSSError(f"{path} is a {image.mode} image", "give --labelmap FILE for coloured masks")
        values = np.array(image.convert("L") if image.mode == "1" else image)
    known = set(np.flatnonzero(table).tolist())
    if known and not known & set(np.unique(values).tolist()):
        raise OV2VSSError(
            f"{path} holds the values {np.unique(values)[:8].tolist()}, none of them named", "correct --ids"
        )
    return table[values]


def from_colours(path: Path, colours: dict[tuple[int, int, int], int]) -> Mask:
    """A coloured mask through the colours; a colour that is not listed is an error."""
    rgb = read_rgb(path).astype(np.uint32)
    packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    out = np.zeros(packed.shape, np.uint8)
    for value in np.unique(packed):
        colour = (int(value >> 16), int(value >> 8 & 255), int(value & 255))
        if colour not in colours:
            raise OV2VSSError(f"{path} has the colour {colour}, which labelmap.txt does not name", "add its line")
        out[packed == value] = colours[colour]
    return out


def from_labelme(path: Path, classes: Namer, background: str) -> Mask:
    """Polygons and rectangles of a labelme file, later ones on top; the rest is ``background``."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    out = np.full((data["imageHeight"], data["imageWidth"]), classes(background), np.uint8)
    for shape in data["shapes"]:
        points = np.asarray(shape["points"], np.float64)
        kind = shape.get("shape_type", "polygon")
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        elif kind != "polygon":
            raise OV2VSSError(f"{path}: a shape of type {kind!r}", "draw polygons or rectangles")
        cv2.fillPoly(out, [np.round(points).astype(np.int32)], classes(shape["label"]))
    return out


def add_video(
    data: Path,
    name: str,
    frames: Path,
    read: Callable[[Path], Mask],
    masks: Path,
    suffix: str,
    classes: Classes,
    part: slice = slice(None),
) -> tuple[int, int]:
    """Copy the frames of a folder (those of ``part`` in the order of their names) and write the masks that there are.

    Returns:
        Numbers of frames and of masks.
    """
    found = sorted(p for p in frames.glob("*") if p.suffix.lower() in IMAGES)[part]
    if not found:
        raise OV2VSSError(f"{frames} has no images", "give a folder of jpg or png frames")
    written: dict[Path, Mask] = {}
    for frame in found:
        source = masks / f"{frame.stem}{suffix}"
        if source.is_file():
            mask = read(source)
            with Image.open(frame) as image:
                if image.size != mask.shape[::-1]:
                    raise OV2VSSError(
                        f"{source} is {mask.shape[1]}x{mask.shape[0]}, its frame {image.size[0]}x{image.size[1]}",
                        "export masks at the size of the frames",
                    )
            written[frame] = mask
    if not written:
        raise OV2VSSError(f"{masks} has no {suffix} named like a frame of {frames}", "give both the same names")
    target = data / "data" / name
    for kind in ("origin", "mask"):
        (target / kind).mkdir(parents=True, exist_ok=True)
    for frame in found:
        shutil.copyfile(frame, target / "origin" / frame.name)
    for frame, mask in written.items():
        Image.fromarray(mask).save(target / "mask" / f"{frame.stem}.png")
    classes.save()
    return len(found), len(written)


def add_to_split(data: Path, split: str, name: str) -> None:
    """One more line in ``<split>.txt``, if it is not there."""
    file = data / f"{split}.txt"
    names = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    names = [n.strip() for n in names if n.strip()]
    if name not in names:
        write_text(file, "\n".join([*names, name]) + "\n")


def _part(_context: click.Context, _option: click.Parameter, value: str) -> slice:
    start, _, stop = value.partition(":")
    try:
        return slice(int(start) if start else None, int(stop) if stop else None)
    except ValueError:
        raise click.BadParameter(f"{value} is no FROM:TO") from None


@click.command(context_settings=CONTEXT)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the video in the data set.")
@click.option("--frames", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of frames.")
@click.option("--masks", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of labels.")
@click.option("--ids", default=None, metavar="V=NAME;...", help="Masks of one channel: what their values mean.")
@click.option(
    "--labelmap", default=None, type=click.Path(path_type=Path, dir_okay=False), help="Coloured masks: their colours."
)
@click.option("--labelme", is_flag=True, help="The labels are labelme's JSON files.")
@click.option("--background", default="", metavar="NAME", help="Class of what nobody drew on [default: unlabelled].")
@click.option("--split", default="train", show_default=True, help="Split file that the video is added to.")
@click.option("--part", default=":", callback=_part, metavar="FROM:TO", help="Only these frames, counted from 0.")
@program
def main(
    data: Path,
    name: str,
    frames: Path,
    masks: Path,
    ids: str | None,
    labelmap: Path | None,
    labelme: bool,
    background: str,
    split: str,
    part: slice,
) -> None:
    """Add a video with masks to the data set DATA, which is made if it is not there.

    \b
      python -m ov2vss.data.convert pets --name walk --frames frames --masks masks --ids "255=dog; 0=background"
      python -m ov2vss.data.convert street --name drive --frames frames --masks SegmentationClass --labelmap map.txt
      python -m ov2vss.data.convert shop --name aisle --frames frames --masks frames --labelme --background floor
    """
    if sum((ids is not None, labelmap is not None, labelme)) != 1:
        raise click.UsageError("give exactly one of --ids, --labelmap and --labelme")
    if background and ids is not None:
        raise click.UsageError("--background goes with --labelmap or --labelme; in --ids name its value")
    if not masks.is_dir():
        raise OV2VSSError(f"folder {masks} does not exist", "check --masks")
    data.mkdir(parents=True, exist_ok=True)
    classes = Classes(data / "classes.txt")
    read: Callable[[Path], Mask]
    if ids is not None:
        table = parse_ids(ids, classes)
        read = lambda path: from_values(path, table)  # noqa: E731
    elif labelmap is not None:
        if not labelmap.is_file():
            raise OV2VSSError(f"{labelmap} does not exist", "check --labelmap")
        colours = parse_labelmap(labelmap, classes, background)
        read = lambda path: from_colours(path, colours)  # noqa: E731
    else:
        read = lambda path: from_labelme(path, classes, background)  # noqa: E731
    count, labelled = add_video(data, name, frames, read, masks, ".json" if labelme else ".png", classes, part)
    add_to_split(data, split, name)
    click.echo(f"{data}: {name} in {split}.txt, {count} frames, {labelled} with masks; classes: {len(classes.lines)}")


if __name__ == "__main__":
    main()
