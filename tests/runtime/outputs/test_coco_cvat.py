"""Labels for other tools, read back by the tools' own code: pycocotools; and CVAT's layout by our converter."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.coco import CocoFile, compress
from ov2vss_runtime.outputs.cvat import CvatFolder, distinct_colours
from ov2vss_runtime.stream.stream import Result

NAMES = ["road", "car", "sky", "nothing"]


def results(count: int = 4, size: tuple[int, int] = (37, 53)) -> list[Result]:
    """Blobs, a lone pixel, whole columns, the last pixel; 255 is unknown; nobody shows ``nothing``."""
    rng = np.random.default_rng(3)
    made = []
    for index in range(count):
        labels = np.kron(rng.integers(0, 3, (7, 9)), np.ones((6, 6), int))[: size[0], : size[1]].astype(np.uint8)
        labels[rng.random(size) < 0.02] = 255
        labels[:, 5:8], labels[-1, -1], labels[0, 0] = 1, 2, 0
        if index == 1:
            labels[:] = 2
        made.append(Result(index, index / 25, np.zeros((*size, 3), np.uint8), labels, NAMES))
    return made


def test_pycocotools_reads_every_mask_back(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    shots = results()
    with CocoFile(tmp_path / "a/labels.json", NAMES, "drive") as output:
        for shot in shots:
            output.write(shot)
        assert not (tmp_path / "a/labels.json").exists()
    coco = coco_api.COCO(str(tmp_path / "a/labels.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == NAMES
    assert [i["file_name"] for i in coco.loadImgs(coco.getImgIds())] == [f"drive/{k:06d}.png" for k in range(4)]
    for number, shot in enumerate(shots, 1):
        read = np.full(shot.labels.shape, 255, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
            mask = coco.annToMask(annotation).astype(bool)
            read[mask] = annotation["category_id"] - 1
            assert annotation["area"] == mask.sum()
            x, y, w, h = annotation["bbox"]
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert mask[y : y + h, x].any()
        assert np.array_equal(read, shot.labels)


def test_run_lengths_are_those_of_pycocotools() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0.0, 0.001, 0.1, 0.5, 1.0):
        mask = np.asfortranarray(rng.random((480, 854)) < share).astype(np.uint8)
        flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
        edges = np.flatnonzero(np.diff(flat))
        counts = np.diff(np.concatenate([[0], edges])) if mask.any() else np.array([mask.size])
        assert compress(counts) == mask_api.encode(mask)["counts"].decode()


def test_an_interrupted_coco_file_keeps_its_part_and_can_be_read(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    with pytest.raises(RuntimeError), CocoFile(tmp_path / "labels.json", NAMES, "x") as output:  # noqa: PT012
        output.write(results()[0])
        raise RuntimeError
    assert not (tmp_path / "labels.json").exists()
    assert len(coco_api.COCO(str(tmp_path / "labels.json.part")).getImgIds()) == 1
    with pytest.raises(VideoError, match="is a folder"):
        CocoFile(tmp_path, NAMES, "x")


def test_cvat_colours_name_the_classes(tmp_path: Path) -> None:
    from ov2vss.data.convert import Classes, from_colours, parse_labelmap

    shots = results()
    with CvatFolder(tmp_path / "drive", NAMES) as output:
        for shot in shots:
            output.write(shot)
    lines = (tmp_path / "drive/labelmap.txt").read_text().splitlines()
    assert lines[0].startswith("#")
    assert lines[1] == "background:0,0,0::"
    assert (tmp_path / "drive/ImageSets/Segmentation/default.txt").read_text().split() == [f"{k:06d}" for k in range(4)]
    named = {line.split(":")[0]: tuple(map(int, line.split(":")[1].split(","))) for line in lines[1:]}
    classes = Classes(tmp_path / "classes.txt")
    colours = parse_labelmap(tmp_path / "drive/labelmap.txt", classes, "")
    for shot in shots:
        path = tmp_path / f"drive/SegmentationClass/{shot.index:06d}.png"
        rgb = np.array(Image.open(path).convert("RGB"))
        for k, name in enumerate(NAMES):
            assert np.array_equal((rgb == named[name]).all(-1), shot.labels == k)
        assert np.array_equal(from_colours(path, colours), np.where(shot.labels == 255, 0, shot.labels + 1))


def test_cvat_refuses_what_its_files_cannot_hold(tmp_path: Path) -> None:
    assert len({tuple(c) for c in distinct_colours(254).tolist()}) == 255
    for names, said in ((["a:b"], "colon"), ([f"w{k}" for k in range(255)], "255 words")):
        with pytest.raises(VideoError, match=said):
            CvatFolder(tmp_path / "x", names)
    CvatFolder(tmp_path / "y", ["background", "car"])
    assert (tmp_path / "y/labelmap.txt").read_text().splitlines()[1].startswith("unlabelled:0,0,0")
