"""JSON Lines, arrays, overlays: what stands in the files, and what is left when something goes wrong."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ov2vss_runtime.errors import VideoError
from ov2vss_runtime.outputs.fonts import Lettering, _file_for, has_letter
from ov2vss_runtime.outputs.masks import MaskWriter
from ov2vss_runtime.outputs.overlay import Overlay, OverlayStyle
from ov2vss_runtime.outputs.targets import Arrays, JsonLines, record
from ov2vss_runtime.stream.pipeline import Background
from ov2vss_runtime.stream.stream import Result


def result(**more) -> Result:
    labels = np.array([[0, 0, 2, 255], [0, 2, 2, 2]], np.uint8)
    frame = np.zeros((2, 4, 3), np.uint8)
    return Result(7, 0.28, frame, labels, ["road", "car", "sky"], **more)


def test_areas_and_confidence() -> None:
    sure = np.array([[0.5, 0.7, 1.0, 0.1], [0.9, 0.8, 0.6, 0.6]], np.float32)
    assert record(result(confidence=sure)) == {
        "frame": 7,
        "time": 0.28,
        "classes": {"road": {"area": 0.375, "confidence": 0.7}, "sky": {"area": 0.5, "confidence": 0.75}},
        "unknown": 0.125,
    }
    line = record(result(held=True, name="f1"))
    assert (line["held"], line["name"], "cut" in line) == (True, "f1", False)
    assert line["classes"]["sky"] == {"area": 0.5}


def test_json_lines_are_there_at_once_and_named_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a/areas.jsonl"
    with JsonLines(path) as output:
        output.write(result())
        assert json.loads((tmp_path / "a/areas.jsonl.part").read_text())["frame"] == 7
        assert not path.exists()
    assert json.loads(path.read_text())["classes"]["road"]["area"] == 0.375
    with pytest.raises(RuntimeError), JsonLines(path) as output:  # noqa: PT012
        output.write(result())
        raise RuntimeError
    assert len(path.read_text().splitlines()) == 1
    assert path.with_name("areas.jsonl.part").exists()
    with pytest.raises(VideoError, match="is a folder"):
        JsonLines(tmp_path)


def test_arrays(tmp_path: Path) -> None:
    logits = np.array([[[1.0, -1]], [[0.0, 2]], [[3.0, 1]]], np.float32)
    kept = np.array([0, 4, 9])
    shot = result(logits=logits, classes=kept)
    Arrays(tmp_path, 0).write(shot)
    with np.load(tmp_path / "000007.npz", allow_pickle=False) as data:
        assert np.array_equal(data["logits"], logits.astype(np.float16))
        assert data["classes"].tolist() == [0, 4, 9]
        assert data["names"].tolist() == ["road", "car", "sky"]
    Arrays(tmp_path, 2).write(shot)
    with np.load(tmp_path / "000007.npz", allow_pickle=False) as data:
        assert data["classes"].tolist() == [[[9, 4]], [[0, 9]]]
        shares = np.exp(logits[:, 0, 0]) / np.exp(logits[:, 0, 0]).sum()
        assert data["probabilities"][:, 0, 0] == pytest.approx([shares[2], shares[0]], abs=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["000007.npz"]


def test_outlines_and_side_by_side() -> None:
    frame = np.full((48, 64, 3), 100, np.uint8)
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 32:] = 1
    style = OverlayStyle(alpha=0.0, outlines=True, legend=False, side_by_side=True)
    overlay = Overlay(["a", "b"], (48, 64), style)
    out = overlay.draw(frame, labels)
    assert out.shape == (48, 128, 3)
    assert overlay.out_size == (48, 128)
    assert np.array_equal(out[:, :64], frame)
    assert (out[:, 64 + 32] == 16).all()
    assert (out[:, 64:96] == 100).all()
    assert (out[:, 97:] == 100).all()


def test_a_legend_that_is_too_tall_lists_what_covers_most() -> None:
    """124 words on a small frame: the legend stays within its share, and shows what is there."""
    labels = np.full((120, 160), 5, np.uint8)
    labels[:3] = 60
    frame = np.full((120, 160, 3), 200, np.uint8)
    names = [f"class number {k}" for k in range(31)]
    out = Overlay(names, (120, 160), 0.0).draw(frame, np.minimum(labels, 30))
    changed = np.flatnonzero((out != 200).any((1, 2)))
    assert changed.size, "no legend"
    assert 120 - changed[0] <= 0.34 * 120


def legend(name: str) -> bytes:
    labels = np.zeros((200, 300), np.uint8)
    return Overlay([name], (200, 300), 0.0).draw(np.zeros((200, 300, 3), np.uint8), labels).tobytes()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Straße", "Stra?e"), ("véhicule", "vèhicule"), ("дорога", "дорога́я"), ("дом", "дым"), ("汽車", "汽船"),
     ("道路", "車道"), ("길", "차"), ("łódka", "żódka"),
     ("سيارة", "شجرة"), ("🚗", "🌳"), ("\U000e0041a", "\U000f0000a")],
)  # fmt: skip
def test_names_in_every_script_differ_in_pixels(one: str, other: str) -> None:
    assert legend(one) != legend(other)


@pytest.mark.parametrize("letters", ["éèßñøłžşğăœ", "дорогаёїђ", "αβγ", "汽車路人", "かなカナ", "도로차"])
def test_letters_are_no_boxes(letters: str) -> None:
    """Each one has a picture in the font that is chosen, other than the box of letters that the font lacks."""
    for letter in letters:
        path = _file_for(letter)
        assert path is not None, letter
        assert has_letter(path, letter)
        assert not has_letter(path, "\U0010fffd")


def test_a_letter_that_no_font_has_is_written_as_its_code(caplog: pytest.LogCaptureFixture) -> None:
    letters = Lettering(12)
    assert "".join(piece for piece, _ in letters._runs("a\U000e1000b")) == "aU+E1000b"
    assert letters.length("a\U000e1000b") == pytest.approx(letters.length("aU+E1000b"), abs=2)


@pytest.mark.parametrize("form", ["palette", "gray"])
def test_masks_hold_ids_as_a_palette_or_as_grey(form: str, tmp_path: Path) -> None:
    """OpenCV reads a palette as colours; grey values it reads as they are."""
    path = MaskWriter(tmp_path, 3, form).write("m", result().labels)
    ids = np.array([[1, 1, 3, 0], [1, 3, 3, 3]])
    assert np.array_equal(np.asarray(Image.open(path)), ids)
    as_grey = np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), ids)
    assert as_grey == (form == "gray")


def test_background_finishes_what_was_put_and_reports_errors() -> None:
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt), Background(3) as writer:  # noqa: PT012
        for index in range(3):
            writer.put(done.append, index)
        raise KeyboardInterrupt
    assert done == [0, 1, 2]

    def fail() -> None:
        raise VideoError("disk full", "free some space")

    with pytest.raises(VideoError, match="disk full"), Background(1) as writer:  # noqa: PT012
        for _ in range(10):
            writer.put(fail)
    with pytest.raises(VideoError, match="disk full"), Background(5) as writer:
        writer.put(fail)
