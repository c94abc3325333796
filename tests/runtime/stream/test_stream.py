"""The streaming logic alone, on an engine that only keeps books."""

from typing import Any

import numpy as np
import pytest

from ov2vss_runtime.engines.engine import Capabilities, FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.stream import Stream, StreamOptions
from tests.runtime.stream.test_propagation import picture, scene


class BookKeeper:
    """Frames are numbered by their first pixel; states and contexts are the numbers that they came from."""

    size, can = (32, 32), Capabilities(warmup=3)

    def __init__(self) -> None:
        self.steps: list[tuple[int, Any, Any]] = []

    def backbone(self, frame: np.ndarray) -> FrameFeatures:
        number = int(frame[0, 0, 0])
        return FrameFeatures(f"context {number}", number)

    def initial_state(self) -> str:
        return "zeros"

    def step(self, features: FrameFeatures, context: Any, state: Any) -> tuple[int, int]:
        self.steps.append((features.payload, context, state))
        return features.payload, features.payload

    def decode(self, features: FrameFeatures, guidance: Any, embeddings: np.ndarray) -> np.ndarray:
        return np.zeros((len(embeddings), 4, 4), np.float32)

    def encode_text(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 2), np.float32)


def frame(number: int) -> np.ndarray:
    return np.full((32, 32, 3), number, np.uint8)


def make(engine: BookKeeper, gap: int, **kwargs: Any) -> Stream:
    return Stream(engine, ["a", "b"], ("{}",), gap, **kwargs)


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_each_frame_sees_the_state_gap_frames_back(gap: int) -> None:
    engine = BookKeeper()
    stream = make(engine, gap)
    for t in range(12):
        stream.step(frame(t))
    warm_up, frames = engine.steps[:3], engine.steps[3:]
    assert [s[2] for s in warm_up] == ["zeros", 0, 0]
    assert [s[0] for s in warm_up] == [0, 0, 0]
    assert [(s[0], s[2]) for s in frames] == [(t, max(0, t - gap)) for t in range(12)]


def test_reset_warms_up_again() -> None:
    engine = BookKeeper()
    stream = make(engine, 3)
    for t in range(5):
        stream.step(frame(t))
    stream.reset()
    assert stream.step(frame(9)).index == 0
    assert engine.steps[-4:] == [(9, "context 9", s) for s in ("zeros", 9, 9, 9)]


def test_farthest_uses_the_more_distant_of_first_and_last() -> None:
    engine = BookKeeper()
    stream = make(engine, 1, distant="farthest")
    stream.set_last(frame(100), 10.0)
    for t in range(11):
        stream.step(frame(t), float(t))
    used = [context for _, context, _ in engine.steps[3:]]
    assert used == ["context 100"] * 5 + ["context 0"] * 6  # the first on a tie, at t = 5


def test_first_and_reservoir() -> None:
    engine = BookKeeper()
    stream = make(engine, 1, distant="first")
    for t in range(4):
        stream.step(frame(t))
    assert {context for _, context, _ in engine.steps} == {"context 0"}

    counts = np.zeros(8)
    for seed in range(800):
        engine = BookKeeper()
        stream = make(engine, 1, distant="reservoir", options=StreamOptions(seed=seed))
        for t in range(8):
            stream.step(frame(t))
        counts[int(engine.steps[-1][1].split()[1])] += 1
    assert counts.min() > 60  # 100 expected each
    assert counts.max() < 145


def test_words_change_without_touching_the_state() -> None:
    engine = BookKeeper()
    stream = make(engine, 2)
    stream.step(frame(0))
    stream.set_vocabulary("x; y; z")
    result = stream.step(frame(1))
    assert result.names == ["x", "y", "z"]
    assert engine.steps[-1] == (1, "context 0", 0)


def test_bad_frames_are_refused() -> None:
    stream = make(BookKeeper(), 1)
    for bad in (np.zeros((32, 32), np.uint8), np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 3), np.float32)):
        with pytest.raises(OV2VSSError, match="RGB uint8"):
            stream.step(bad)
    with pytest.raises(OV2VSSError, match="gap"):
        make(BookKeeper(), 0)


def test_held_frames_take_the_last_labels_and_leave_the_state() -> None:
    engine = BookKeeper()
    stream = make(engine, 1)
    with pytest.raises(OV2VSSError, match=r"call step\(\) first"):
        stream.hold(frame(0))
    first = stream.step(frame(3), 0.0)
    held = stream.hold(frame(4), 0.1)
    assert (held.index, held.time, held.held, first.held) == (1, 0.1, True, False)
    assert held.labels is first.labels
    assert held.frame[0, 0, 0] == 4
    assert stream.step(frame(5), 0.2).index == 2
    assert engine.steps[-1] == (5, "context 3", 3)
    assert (stream.index, stream.computed) == (3, 2)


class Painter(BookKeeper):
    """Three classes: logits and tokens are chosen by the frame's number."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: list[int] = []

    def decode(self, features: FrameFeatures, guidance: Any, embeddings: np.ndarray) -> np.ndarray:
        self.decoded.append(len(embeddings))
        # Class k scores what its embedding says, so that a subset keeps its logits.
        return np.ascontiguousarray(np.broadcast_to(embeddings[:, :1, None], (len(embeddings), 4, 4)), np.float32)

    def feature(self, features: FrameFeatures, name: str) -> np.ndarray:
        if name == "tokens":
            shot = features.payload // 100
            return np.random.default_rng(shot).standard_normal((4, 30, 8)).astype(np.float32)
        dense = np.zeros((8, 2, 2), np.float32)
        dense[features.payload % 8] = 1
        return dense


def test_confidence_is_the_softmax_and_unknown_is_what_lies_below() -> None:
    logits = np.array([[1.0, 0], [0.5, 0], [-2.0, 0]], np.float32)
    share = np.exp(1.0) / np.exp([1.0, 0.5, -2.0]).sum()
    engine = Painter()
    stream = Stream(engine, ["a", "b", "c"], ("{}",), 1, embeddings=logits, options=StreamOptions(confidence=True))
    result = stream.step(frame(0))
    assert np.allclose(result.confidence, share, atol=1e-5)
    assert (result.labels == 0).all()
    for below, label in [(share - 0.01, 0), (share + 0.01, 255)]:
        options = StreamOptions(unknown_below=float(below))
        stream = Stream(engine, ["a", "b", "c"], ("{}",), 1, embeddings=logits, options=options)
        result = stream.step(frame(0))
        assert (result.labels == label).all()
        assert result.unknown == 255
    with pytest.raises(OV2VSSError, match="unknown_below"):
        StreamOptions(unknown_below=2)


def test_a_cut_starts_the_state_anew() -> None:
    engine = Painter()
    stream = Stream(engine, ["a"], ("{}",), 2, options=StreamOptions(reset_on_cut=True))
    cuts = [stream.step(frame(n)).cut for n in (1, 2, 3, 101, 102, 103)]
    assert cuts == [False, False, False, True, False, False]
    after = [s for s in engine.steps if s[0] > 100]
    assert after[:4] == [(101, "context 101", s) for s in ("zeros", 101, 101, 101)]
    assert stream.index == 6


def test_only_candidates_are_decoded_and_labels_are_of_the_whole_list() -> None:
    embeddings = np.eye(8, dtype=np.float32)[np.arange(300) % 8]
    embeddings[:, 0] = np.linspace(0, 1, 300)  # class 299 wins wherever it is decoded
    words = [f"w{k}" for k in range(300)]
    engine = Painter()
    stream = Stream(engine, words, ("{}",), 1, embeddings=embeddings, options=StreamOptions(top_classes=20))
    result = stream.step(frame(3))
    assert engine.decoded == [20]
    assert result.logits.shape[0] == len(result.classes) == 20
    # The dense features point along axis 3: the classes that do too are the nearest.
    assert (result.classes % 8 == 3).all()
    assert result.labels.dtype == np.uint16
    assert (result.labels == result.classes.max()).all()
    # Words that are new are looked at at once, and the shot's candidates last until the next look.
    stream.step(frame(5))
    assert set(stream._rows.chosen) == set(result.classes)
    stream.set_vocabulary(["a", "b"], embeddings[:2])
    assert stream.step(frame(5)).logits.shape[0] == 2


def test_candidates_follow_the_video() -> None:
    from ov2vss_runtime.stream.pruning import FRAMES_BETWEEN_LOOKS, ClassPruner

    pruner, embeddings = ClassPruner(2), np.eye(8, dtype=np.float32)

    def dense(axis: int) -> np.ndarray:
        values = np.zeros((8, 1, 2), np.float32)
        values[axis, 0, 0] = values[7, 0, 1] = 1
        return values

    assert pruner.due()
    pruner.look(dense(1), embeddings)
    for _ in range(FRAMES_BETWEEN_LOOKS):
        assert not pruner.due()
        assert pruner.active().tolist() == [1, 7]
    assert pruner.due()
    pruner.look(dense(2), embeddings)
    assert pruner.active().tolist() == [2, 7]


class Walker(BookKeeper):
    """Logits follow the picture: a border between two words at a bright edge."""

    size = (96, 160)

    def decode(self, features: FrameFeatures, guidance: Any, embeddings: np.ndarray) -> np.ndarray:
        return np.repeat(scene(int(features.payload))[1][:1], len(embeddings), 0) * np.arange(len(embeddings))[
            :, None, None
        ].astype(np.float32)


def walk(t: int) -> np.ndarray:
    """Frame ``t`` of a picture that moves; its number stands in the first pixel."""
    found = picture(t)
    found[0, 0, 0] = t
    return found


@pytest.mark.parametrize(("gap", "every", "back"), [(3, 3, 3), (3, 2, 4), (3, 5, 5), (9, 3, 9), (1, 4, 4)])
def test_key_frames_keep_the_gap_in_time(gap: int, every: int, back: int) -> None:
    engine = Walker()
    stream = make(engine, gap, options=StreamOptions(keyframes=every))
    results = [stream.step(walk(t), float(t)) for t in range(25)]
    keys = list(range(0, 25, every))
    assert [r.index for r in results if not r.propagated] == keys
    assert [r.age for r in results] == [t % every for t in range(25)]
    assert [(s[0], s[2]) for s in engine.steps[3:]] == [(t, max(0, t - back)) for t in keys]
    assert (stream.index, stream.computed) == (25, len(keys))


def test_auto_looks_where_the_motion_asks_for_it() -> None:
    still_engine, moving_engine = Walker(), Walker()
    stream = make(still_engine, 2, options=StreamOptions(keyframes="auto"))
    results = [stream.step(walk(0), float(t)) for t in range(17)]
    assert [r.index for r in results if not r.propagated] == [0, 8, 16]  # the bound on the distance
    stream = make(moving_engine, 2, options=StreamOptions(keyframes="auto"))
    frames = [walk(3 * t) for t in range(8)] + [picture(0, seed=s) for s in (4, 5)]
    seen = [r.index for r in (stream.step(f) for f in frames) if not r.propagated]
    assert 2 < len(seen) < 10
    assert seen[-2:] == [8, 9]  # new shots


def test_smoothing_is_off_unless_asked_for_and_ends_with_restart_words_and_size() -> None:
    engine = Walker()
    plain, smooth = make(engine, 1), make(engine, 1, options=StreamOptions(smooth=True))
    for t in range(3):
        exact, blended = plain.step(walk(t)).logits, smooth.step(walk(t)).logits
        assert exact is not None
        assert blended is not None
        assert np.array_equal(exact, blended) == (t == 0)
    smooth.restart()
    np.testing.assert_array_equal(smooth.step(walk(3)).logits, plain.step(walk(3)).logits)
    smooth.set_vocabulary("x; y; z")
    plain.set_vocabulary("x; y; z")
    np.testing.assert_array_equal(smooth.step(walk(4)).logits, plain.step(walk(4)).logits)
    assert not np.array_equal(smooth.step(walk(5)).logits, plain.step(walk(5)).logits)
    wide = np.concatenate((walk(6), walk(6)), 1)
    np.testing.assert_array_equal(smooth.step(wide).logits, plain.step(wide).logits)


def test_other_candidates_are_not_blended() -> None:
    engine = Walker()
    stream = make(engine, 1, options=StreamOptions(keyframes=4, smooth=True))
    stream.step(walk(0))
    assert stream.step(walk(1)).propagated
    stream.set_vocabulary("a; c")
    assert not stream.step(walk(2)).propagated  # one frame fills the past again
    assert stream.step(walk(3)).propagated


def test_key_frame_options_are_checked() -> None:
    for bad in (0, -1, True, 2.5, "often"):
        with pytest.raises(OV2VSSError, match="keyframes|key frames"):
            StreamOptions(keyframes=bad)  # type: ignore[arg-type]
