"""Clips made of still pictures: labels move with what they label, motion is that of a film, and training takes them."""

import numpy as np
import pytest

from ov2vss.data.clips import ClipDataset, ClipSpec
from ov2vss.data.degraded_target import KINDS, worsen
from ov2vss.data.moving import MovingStills, Scene, Thing, camera, cut_out, make_scene
from ov2vss.data.shapes import ShapesVideos
from ov2vss.evaluate.temporal import moved

SECONDS = (np.arange(10) - 4) / 15


def painted(size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose colour says its label: a label can be read off a frame."""
    labels = np.ones(size, np.uint8)
    labels[20:60, 30:70] = 2
    labels[50:80, 80:110] = 3
    palette = np.array([[0, 0, 0], [40, 60, 80], [200, 60, 40], [60, 210, 90]], np.uint8)
    return palette[labels], labels[..., None]


def test_labels_stay_on_what_they_label() -> None:
    rgb, labels = painted()
    scene = make_scene(rgb, labels, [(rgb, labels)] * 3, np.random.default_rng(3), 10)
    assert scene.things
    palette = np.array([[0, 0, 0], [40, 60, 80], [200, 60, 40], [60, 210, 90]], np.float32)
    for t in range(10):
        frame, found = scene.frame(t)
        nearest = np.linalg.norm(frame[:, :, None].astype(np.float32) - palette, axis=-1).argmin(-1)
        assert (nearest == found[..., 0]).mean() > 0.98  # all but mixed colours at edges


def test_the_picture_itself_is_one_of_the_frames() -> None:
    rgb, labels = painted()
    scene = make_scene(rgb, labels, [], np.random.default_rng(0), 10)
    same = [np.array_equal(scene.frame(t)[0], rgb) and np.array_equal(scene.frame(t)[1], labels) for t in range(10)]
    assert sum(same) == 1


def test_a_pan_moves_by_what_it_says() -> None:
    """Against optical flow, which knows nothing of the maps."""
    rng = np.random.default_rng(1)
    rgb = np.repeat(np.repeat(rng.integers(0, 256, (24, 32, 3)), 8, 0), 8, 1).astype(np.uint8)
    pan = np.tile(np.eye(3), (2, 1, 1))
    pan[1, 0, 2] = 5.0
    scene = Scene(rgb, np.zeros((*rgb.shape[:2], 1), np.uint8), pan)
    at, sure = moved(scene.frame(1)[0], scene.frame(0)[0], rgb.shape[:2])
    columns = np.indices(rgb.shape[:2])[1]
    inner = sure.copy()
    inner[:, :16] = False
    assert np.median((columns - at[..., 0])[inner]) == pytest.approx(5.0, abs=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_the_camera_moves_no_faster_than_a_film(seed: int) -> None:
    matrices = camera(np.random.default_rng(seed), (96, 128), SECONDS)
    np.testing.assert_allclose(matrices[4], np.eye(3), atol=1e-9)
    middle = np.array([(x / x[2])[:2] for x in matrices @ np.array([63.5, 47.5, 1.0])])
    assert np.linalg.norm(np.diff(middle, axis=0), axis=1).max() < 0.1 * 128


def test_things_are_whole_regions_inside_of_their_picture() -> None:
    rgb, labels = painted()
    found = {cut_out(rgb, labels, np.random.default_rng(k)).labels[0, 0, 0] for k in range(8)}  # type: ignore[union-attr]
    assert found == {3}  # 1 touches the border, 2 is larger than a thing may be
    thing = cut_out(rgb, labels, np.random.default_rng(0))
    assert isinstance(thing, Thing)
    assert thing.area.shape == (30, 30)
    assert thing.area.all()
    assert cut_out(rgb, np.zeros_like(labels), np.random.default_rng(0)) is None


def test_moving_stills_are_a_set_of_videos() -> None:
    inner = ShapesVideos("val")
    one, two = (MovingStills(inner, 6, takes=3, seed=5) for _ in range(2))
    assert len(one) == len(one.videos) == 8 * 20 * 3
    assert one.videos[4] == "val-0000/00001#1"
    assert (one.length(7), one.labelled(7)) == (6, list(range(6)))
    for index in (0, 5, 2):
        np.testing.assert_array_equal(one.frame(61, index), two.frame(61, index))
        np.testing.assert_array_equal(one.mask(61, index), two.mask(61, index))
    assert not np.array_equal(one.frame(60, 3), one.frame(61, 3))


def test_training_takes_some_of_its_clips_from_moving_stills() -> None:
    inner = ShapesVideos("val")
    spec = ClipSpec((128, 192), (96, 128), (1.0, 1.0), photometric=False, gap=1)
    table = np.arange(256, dtype=np.uint8)
    stills = MovingStills(inner, 7, seed=1)
    plain = ClipDataset(inner, table, spec, 0)
    mixed = ClipDataset(inner, table, spec, 0, moving=stills, share=0.5)
    names = [mixed.describe(i) for i in range(40)]
    assert 8 < sum("#" in n for n in names) < 32
    assert not any("#" in plain.describe(i) for i in range(40))
    for i in range(3):
        item = mixed[i]
        assert item["clip"].shape == (4, 3, 96, 128)
        assert item["labels"].shape == (96, 128)
        assert (item["labels"] != 0).any()
    always = ClipDataset(inner, table, spec, 0, moving=stills, share=1.0)[3]
    assert not (always["clip"][0] == always["clip"][3]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_making_a_frame_worse_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ov2vss.data.degraded_target.KINDS", (kind,))
    frame = ShapesVideos("val").frame(0, 0)
    worse = worsen(frame, np.random.default_rng(0))
    assert worse.shape == frame.shape
    assert np.abs(worse.astype(int) - frame).mean() > 0.5
    np.testing.assert_array_equal(worse, worsen(frame, np.random.default_rng(0)))


def test_only_the_target_is_made_worse() -> None:
    inner = ShapesVideos("val")
    spec = ClipSpec((128, 192), (96, 128), (1.0, 1.0), photometric=False, gap=1)
    table = np.arange(256, dtype=np.uint8)
    plain, worse = (ClipDataset(inner, table, spec, 0, degraded=share) for share in (0.0, 1.0))
    for i in range(4):
        a, b = plain[i], worse[i]
        np.testing.assert_array_equal(a["clip"][:-1], b["clip"][:-1])
        np.testing.assert_array_equal(a["labels"], b["labels"])
        np.testing.assert_array_equal(a["distant"], b["distant"])
        assert not np.array_equal(a["clip"][-1], b["clip"][-1])
