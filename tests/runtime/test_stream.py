"""The streaming logic alone, on an engine that only keeps books."""

from typing import Any

import numpy as np
import pytest

from ov2vss_runtime.engine import FrameFeatures
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream import Stream, StreamOptions


class BookKeeper:
    """Frames are numbered by their first pixel; states and contexts are the numbers that they came from."""

    size, references = (32, 32), 3

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
    stream.set_distant(frame(100), 10.0)
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
