"""Moving logits along the flow and blending them: the kernel against numpy and scipy-free references, and the rules."""

import cv2
import numpy as np
import pytest

from ov2vss_runtime import _native
from ov2vss_runtime.errors import BundleError
from ov2vss_runtime.stream import propagation
from ov2vss_runtime.stream.flow import Gates, Motion, MotionEstimator, still
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.propagation import Propagator, Smoothing, doubt, propagate, propagate_numpy

CELLS = (12, 20)
RULES = Smoothing(share=0.8, lean=1.5, sure=3.0)


def material(n: int, h: int, w: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Past, present, a flow that also leaves the picture, and trust."""
    rng = np.random.default_rng(seed)
    past, present = (3 * rng.standard_normal((n, h, w)).astype(np.float32) for _ in range(2))
    flow = 4 * rng.standard_normal((h, w, 2)).astype(np.float32)
    return past, present, flow, rng.random((h, w), np.float32)


@pytest.mark.parametrize(("n", "h", "w"), [(1, 3, 4), (2, 1, 1), (11, 44, 80), (20, 12, 20), (300, 7, 9)])
@pytest.mark.parametrize("threads", [1, 3])
def test_kernel_equals_numpy_bit_for_bit(n: int, h: int, w: int, threads: int) -> None:
    past, present, flow, trust = material(n, h, w)
    for size in ((h * 8 + 3, w * 8 - 1), (max(1, h // 2), max(1, w // 3))):
        for now, sure in ((present, trust), (None, None)):
            moved, labels = propagate(past, flow, size, now, sure, RULES, threads)
            np.testing.assert_array_equal(moved, propagate_numpy(past, flow, now, sure, RULES))
            np.testing.assert_array_equal(labels, label_map(moved, size))


def test_confidence_of_the_moved_logits() -> None:
    past, present, flow, trust = material(5, 6, 7)
    found, expected = np.empty((48, 56), np.float32), np.empty((48, 56), np.float32)
    moved, _ = propagate(past, flow, (48, 56), present, trust, RULES, 2, found)
    label_map(moved, (48, 56), 1, expected)
    np.testing.assert_array_equal(found, expected)


def test_without_the_kernel_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    past, present, flow, trust = material(4, 8, 8)
    expected, _ = propagate(past, flow, (64, 64), present, trust, RULES)
    monkeypatch.setattr(propagation, "native", lambda: None)
    moved, _ = propagate(past, flow, (64, 64), present, trust, RULES)
    np.testing.assert_array_equal(moved, expected)


def test_the_sample_is_the_bilinear_one() -> None:
    """Against OpenCV, whose interpolation counts in steps of 1/32 of a cell."""
    past, _, _, _ = material(3, 20, 30)
    flow = np.full((20, 30, 2), (0.25, -1.5), np.float32)
    y, x = np.indices((20, 30), np.float32)
    moved, _ = propagate(past, flow, (20, 30))
    for plane, found in zip(past, moved, strict=True):
        expected = cv2.remap(plane, x + 0.25, y - 1.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_blend_follows_its_formula() -> None:
    past = np.array([2.0, 0.0], np.float32).reshape(2, 1, 1)
    present = np.array([0.0, 1.0], np.float32).reshape(2, 1, 1)
    one = np.ones((1, 1), np.float32)
    moved, labels = propagate(past, np.zeros((1, 1, 2), np.float32), (1, 1), present, one, RULES)
    # doubt: present 1 - 1/3, past 1 - 2/3; the past is surer, so that its share is not reduced.
    np.testing.assert_allclose(moved.ravel(), [1.6, 0.2], rtol=1e-6)
    assert labels[0, 0] == 0
    moved, labels = propagate(present, np.zeros((1, 1, 2), np.float32), (1, 1), past, one, RULES)
    share = 0.8 * (1 + 1.5 * (1 / 3 - 2 / 3))
    np.testing.assert_allclose(moved.ravel(), [2 - 2 * share, share], rtol=1e-6)
    assert doubt(present, 3.0)[0, 0] == pytest.approx(2 / 3)


def test_the_kernel_refuses_what_does_not_fit() -> None:
    past, present, flow, trust = material(3, 4, 5)
    out, labels = np.empty_like(past), np.empty((8, 8), np.uint8)
    for bad in ((past, flow[:2], None, None), (past, flow, present, None), (past, flow, present[:2], trust)):
        with pytest.raises(ValueError, match="flow|present"):
            _native.propagate(*bad, 1.0, 3.0, out, labels, 1)
    with pytest.raises(ValueError, match="out"):
        _native.propagate(past, flow, None, None, 1.0, 3.0, past, labels, 1)


def picture(offset: int, size: tuple[int, int] = (96, 160), seed: int = 0) -> np.ndarray:
    """A window into a wide smooth picture, ``offset`` pixels from its left."""
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (size[0], size[1] + 64, 3)).astype(np.float32), (0, 0), 4)
    wide = 255 * (wide - wide.min()) / np.ptp(wide)
    return np.ascontiguousarray(wide[:, offset : offset + size[1]].astype(np.uint8))


def test_motion_is_found_and_trusted() -> None:
    estimate = MotionEstimator()
    assert estimate(picture(0), CELLS) is None
    motion = estimate(picture(6), CELLS)  # the picture moves 6 pixels to the left: what is at x was at x + 6
    assert motion is not None
    np.testing.assert_allclose(motion.flow[2:-2, 2:-3], np.broadcast_to((6 / 8, 0), (8, 15, 2)), atol=0.08)
    assert motion.trust[2:-2, 2:-3].min() > 0.7
    stranger = estimate(picture(0, seed=9), CELLS)
    assert stranger is not None
    assert stranger.lost


@pytest.mark.parametrize("size", [(96, 160), (128, 192), (352, 640)])
def test_motion_depends_on_two_pictures_alone(size: tuple[int, int]) -> None:
    """OpenCV keeps the scale that it chose for small pictures: an estimator that has seen others, or was told to
    forget them, finds what a new one finds, bit for bit."""
    old = MotionEstimator()
    for seed in range(3):
        old(picture(5 * seed, size, seed), CELLS)
    old.forget()
    new = MotionEstimator()
    for offset in (0, 14, 40):
        found, expected = (estimate(picture(offset, size), CELLS) for estimate in (old, new))
        assert (found is None) == (expected is None) == (offset == 0)
        if found is not None and expected is not None:
            np.testing.assert_array_equal(found.flow, expected.flow)
            np.testing.assert_array_equal(found.trust, expected.trust)
    again = MotionEstimator()
    again.last = old.last  # what a saved stream has kept
    found, expected = (estimate(picture(9, size), CELLS) for estimate in (again, old))
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found.flow, expected.flow)


def test_places_outside_of_the_picture_are_not_trusted() -> None:
    estimate = MotionEstimator()
    estimate(picture(0), None)
    motion = estimate(picture(16), CELLS)  # two cells come in on the right
    assert motion is not None
    assert motion.trust[2:-2, -1].max() < 0.2


def test_motions_add_up() -> None:
    one = Motion(np.full((6, 10, 2), (1, 0), np.float32), np.full((6, 10), 0.5, np.float32))
    two = Motion(np.full((6, 10, 2), (0.5, 0.25), np.float32), np.full((6, 10), 0.8, np.float32))
    both = two.after(one)
    np.testing.assert_allclose(both.flow, np.broadcast_to((1.5, 0.25), (6, 10, 2)), atol=1e-5)
    np.testing.assert_allclose(both.trust, 0.4, atol=1e-5)
    np.testing.assert_array_equal(one.after(still((6, 10))).flow, one.flow)


def scene(offset: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame, and logits of two classes whose border moves with it."""
    x = np.indices((12, 20), np.float32)[1]
    edge = np.clip((10 - offset / 8 - x) * 2, -5, 5)
    return picture(offset), np.stack((edge, -edge))


def test_a_frame_without_network_gets_the_past_moved() -> None:
    propagator = Propagator(smooth=False)
    frame, logits = scene(0)
    propagator.look(frame)
    propagator.blend(logits, "words", (96, 160))
    for offset in (8, 16, 24):
        propagator.look(scene(offset)[0])
    assert propagator.has("words")
    _, labels = propagator.carry((96, 160))
    truth = label_map(scene(24)[1], (96, 160))
    held = label_map(logits, (96, 160))
    assert (labels == truth)[:, :136].mean() > 0.99
    assert (held == truth)[:, :136].mean() < 0.9


def test_noise_of_single_frames_is_smoothed_away() -> None:
    rng = np.random.default_rng(3)
    wrong = {True: [], False: []}
    for smooth in (True, False):
        propagator = Propagator(smooth=smooth)
        for t in range(8):
            frame, logits = scene(4 * t)
            propagator.look(frame)
            noisy = logits + 4 * rng.standard_normal(logits.shape).astype(np.float32)
            _, labels = propagator.blend(noisy, 1, (96, 160))
            wrong[smooth].append((labels != label_map(logits, (96, 160))).mean())
    assert np.mean(wrong[True][2:]) < 0.6 * np.mean(wrong[False][2:])


def test_new_words_drop_the_past_and_one_frame_fills_it() -> None:
    propagator = Propagator()
    frame, logits = scene(0)
    propagator.look(frame)
    propagator.blend(logits, "a", (12, 20))
    propagator.look(frame)
    other = np.stack((*logits, logits[0] + 1))
    assert not propagator.has("b")
    found, _ = propagator.blend(other, "b", (12, 20))
    np.testing.assert_array_equal(found, other)
    propagator.look(frame)
    assert propagator.has("b")


def test_a_new_shot_takes_nothing_from_the_old_one() -> None:
    propagator = Propagator()
    frame, logits = scene(0)
    propagator.look(frame)
    propagator.blend(logits, "a", (12, 20))
    propagator.look(picture(0, seed=5))
    assert not propagator.has("a")
    found, _ = propagator.blend(-logits, "a", (12, 20))
    np.testing.assert_array_equal(found, -logits)


def test_constants_go_through_a_manifest() -> None:
    rules = Smoothing(0.5, 1.0, 2.0, Gates(5.0, 1.0, 3.0, 0.2, 0.6))
    assert Smoothing.from_manifest(rules.to_manifest()) == rules
    assert Smoothing.from_manifest({}) == Smoothing()
    assert Smoothing.from_manifest({"share": 0.5, "gain": {"miou": 0.1}}).share == 0.5
    for bad in ({"share": 1.0}, {"share": "much"}, {"grey": 0}, {"method": "magic"}, {"share": float("nan")}):
        with pytest.raises(BundleError):
            Smoothing.from_manifest(bad)
