"""Windows over a frame: where they lie, what their mean is, and who refuses them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ov2vss_runtime import Segmenter, StreamOptions
from ov2vss_runtime.bundle.clip_bundles import of_windows
from ov2vss_runtime.cli import main as run
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.tiles import TiledEngine, Tiles, parse_tiles, spread, starts
from tests.conftest import moving_frames, write_video
from tests.hand_made import SIZE, HandMade

WORDS = ["road", "sky", "car", "dog"]
TILES = Tiles(120, 40)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.load(HandMade().write(tmp_path_factory.mktemp("bundles") / "plain"))


def by_hand(frame: np.ndarray, words: list[str], tiles: Tiles = TILES) -> np.ndarray:
    """Mean of the windows' logits, each interpolated by OpenCV to its own pixels: ``[N, H, W]``."""
    scale = tiles.short / min(frame.shape[:2])
    size = tuple(round(side * scale) for side in frame.shape[:2])
    picture = resize_frame(frame, size)
    total, count = np.zeros((len(words), *size)), np.zeros(size)
    # The same windows as the slide inference of the segmentation toolboxes.
    down = max(size[0] - SIZE[0] + tiles.stride - 1, 0) // tiles.stride + 1
    across = max(size[1] - SIZE[1] + tiles.stride - 1, 0) // tiles.stride + 1
    for row in range(down):
        for column in range(across):
            bottom, right = min(row * tiles.stride + SIZE[0], size[0]), min(column * tiles.stride + SIZE[1], size[1])
            place = slice(bottom - SIZE[0], bottom), slice(right - SIZE[1], right)
            logits = HandMade().logits([picture[place]], words)[0].astype(np.float32)
            total[(slice(None), *place)] += [cv2.resize(x, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for x in logits]
            count[place] += 1
    return total / count


@pytest.mark.parametrize(
    ("backend", "size"),
    [("onnxruntime", (96, 160)), ("onnxruntime", (240, 130)), ("onnxruntime", (120, 120)), ("openvino", (96, 160))],
)
def test_logits_are_the_mean_over_windows(segmenter: Segmenter, size: tuple[int, int], backend: str) -> None:
    run = segmenter if backend == "onnxruntime" else Segmenter.load(segmenter.bundle, backend)
    stream = run.stream(None, "; ".join(WORDS), options=StreamOptions(tiles=TILES))
    for frame in moving_frames(2, size):
        wanted = by_hand(frame, WORDS)
        result = stream.step(frame)
        assert np.linalg.norm(result.logits - wanted) <= 5e-6 * np.linalg.norm(wanted)
        planes = [cv2.resize(x.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for x in wanted]
        best = np.sort(planes, axis=0)
        clear = best[-1] - best[-2] > 1e-4
        assert clear.mean() > 0.9
        assert np.array_equal(result.labels[clear], np.argmax(planes, 0)[clear])


def test_a_constant_is_left_as_it_is_and_a_single_window_is_one_pass(segmenter: Segmenter) -> None:
    assert np.allclose(spread(500, 224, 112, 14).sum(1), 1, atol=1e-6)
    assert starts(224, 224, 112) == [0]
    assert starts(592, 224, 112) == [0, 112, 224, 336, 368]
    frame = moving_frames(1, (96, 96))[0]
    tiled = TiledEngine(segmenter.engine, Tiles(96, 64))
    tiled.fit((96, 96))
    assert tiled.grid == ([0, 32], [0])
    stream = segmenter.stream(None, "road; sky", options=StreamOptions(tiles=Tiles(96, 64)))
    assert stream.logits(frame).shape == (2, 96, 96)


def test_frames_of_another_size_begin_anew_and_words_may_change(segmenter: Segmenter) -> None:
    options = StreamOptions(tiles=TILES, reset_on_cut=True, smooth=True, top_classes=2)
    stream = segmenter.stream(None, "road; sky; car", options=options)
    wide, tall = moving_frames(2, (96, 160)), moving_frames(2, (160, 96))
    for frame in (*wide, *tall):
        assert stream.step(frame).labels.shape == frame.shape[:2]
    stream.set_vocabulary("dog; sea")
    assert stream.step(tall[0]).names == ["dog", "sea"]
    kept = stream.save()
    other = segmenter.stream(None, "dog; sea", options=options)
    other.load(kept)
    assert np.array_equal(other.step(tall[1]).labels, stream.step(tall[1]).labels)


@pytest.mark.parametrize(
    ("tiles", "said"),
    [(Tiles(80), "do not fit into a short side of 80"), (Tiles(120, 65), "stride of 65 leaves gaps")],
)
def test_windows_that_cannot_cover_a_frame_are_refused(segmenter: Segmenter, tiles: Tiles, said: str) -> None:
    with pytest.raises(OV2VSSError, match=said):
        segmenter.stream(None, options=StreamOptions(tiles=tiles))


def test_bundles_with_a_memory_are_refused(tmp_path: Path) -> None:
    for name, made in (("state", HandMade(state=True)), ("distant", HandMade(distant=True))):
        loaded = Segmenter.load(made.write(tmp_path / name))
        with pytest.raises(OV2VSSError, match="memory of whole frames"):
            loaded.stream(None, options=StreamOptions(tiles=TILES))


@pytest.mark.parametrize("text", ["", "a", "336:", "336:0", ":112", "9999999", "-3"])
def test_texts_that_are_no_tiles(text: str) -> None:
    with pytest.raises(OV2VSSError):
        parse_tiles(text)


def test_texts_that_are() -> None:
    assert parse_tiles("336:112") == Tiles(336, 112)
    assert parse_tiles("336") == Tiles(336)


def test_run_writes_the_labels_of_windows(segmenter: Segmenter, tmp_path: Path) -> None:
    frames = moving_frames(2, (96, 160))
    video = write_video(tmp_path / "video.mp4", frames, codec="libx264rgb", pix_fmt="rgb24")
    args = [str(video), "--bundle", str(segmenter.bundle.folder), "--vocab", "; ".join(WORDS), "--tiles", "120:40"]
    args += ["--masks", str(tmp_path / "masks"), "--no-video", "--no-smooth"]
    done = CliRunner().invoke(run, args)
    assert done.exit_code == 0, done.output
    stream = segmenter.stream(str(video), "; ".join(WORDS), options=StreamOptions(tiles=TILES, smooth=False))
    for result, path in zip(stream, sorted((tmp_path / "masks" / "video").glob("*.png")), strict=True):
        assert np.array_equal(np.array(Image.open(path)), result.labels + 1)
    wrong = CliRunner().invoke(run, [*args[:6], "tiles"])
    assert wrong.exit_code == 2
    assert "336:112" in wrong.output


def test_windows_of_a_clip_are_of_224_pixels_unless_its_name_says_otherwise() -> None:
    assert of_windows("clip:ViT-B-16/openai") == "clip:ViT-B-16/openai@224x224"
    assert of_windows("clip:ViT-L-14-336/openai@336x336") == "clip:ViT-L-14-336/openai@336x336"
