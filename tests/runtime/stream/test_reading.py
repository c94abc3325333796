"""What a stream does with its source: gaps, limits, resets inside a loop, loops that are left."""

import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime.stream.cuts import CutDetector
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.pipeline import Prefetch
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.video.source import FrameSource, VideoFrame
from tests.conftest import moving_frames, write_video


class Tv(FrameSource):
    """A live source that sends frames as fast as they can be made, with a gap before some."""

    live, name, height, width, rate, time_base = True, "tv", 96, 160, Fraction(25), Fraction(1, 25)

    def __init__(self, frames: int, gaps: tuple[int, ...] = (), pause: float = 0.0) -> None:
        self.sent, self.gaps, self.pause, self.closed = moving_frames(frames), gaps, pause, 0

    def __iter__(self):
        for index, rgb in enumerate(self.sent):
            time.sleep(self.pause)
            yield VideoFrame(rgb, index, index / 25, gap=index in self.gaps)

    def close(self) -> None:
        self.closed += 1


class Told(CutDetector):
    """Says once that a shot begins."""

    cut = False

    def __call__(self, tokens: np.ndarray) -> bool:
        cut, self.cut = self.cut, False
        return cut


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "ov2vss-reader"]


def test_dropping_carries_a_gap_to_the_next_frame_that_is_kept() -> None:
    items = [VideoFrame(np.zeros((1, 1, 3), np.uint8), k, 0.0, gap=k in (3, 20, 39)) for k in range(40)]
    ready = threading.Event()

    def source():
        yield from items
        ready.set()

    with Prefetch(source(), 4, drop=True) as waiting:
        assert ready.wait(10)
        kept = [(frame.pts, frame.gap) for frame in waiting]
    assert kept == [(36, True), (37, False), (38, False), (39, True)]
    assert waiting.dropped == 36


@pytest.mark.parametrize("smooth", [False, True])
def test_a_gap_among_dropped_frames_restarts_the_state(smooth: bool, bundle: Path) -> None:
    """After the gap, labels are bit for bit those of a stream that begins there, though its first frame was dropped."""
    options = StreamOptions(smooth=smooth)
    segmenter, source = Segmenter.load(bundle), Tv(40, gaps=(30,), pause=0.005)
    stream = segmenter.stream(source, queue=2, distant="first", options=options)
    restarted: list[int] = []
    original = stream.restart
    stream.restart = lambda: (restarted.append(stream.index), original())[1]
    shown = []
    for result in stream:
        shown.append(result)
        time.sleep(0.04)
    assert stream.dropped > 10
    assert len(restarted) == 1
    after = [r for r in shown if r.index >= restarted[0]]
    assert after[0].pts >= 30
    assert shown[restarted[0] - 1].pts < 30
    alone = segmenter.stream(None, distant="first", options=options)
    for result in after:
        assert np.array_equal(result.labels, alone.step(result.frame, result.time).labels)


@pytest.mark.parametrize(("how", "keyframes"), [("restart", 1), ("reset", 1), ("gap", 1), ("cut", 1), ("restart", 2)])
def test_nothing_of_the_past_is_left_after_a_new_start(how: str, keyframes: int, bundle: Path) -> None:
    """With smoothing on, logits and labels after it are bit for bit those of a stream that begins there; the picture
    moves by 10 pixels a frame, so that the flow is put to work."""
    segmenter = Segmenter.load(bundle)
    options = StreamOptions(smooth=True, logits=True, keyframes=keyframes, reset_on_cut=how == "cut")
    before, after = moving_frames(60, seed=1)[::10], moving_frames(60, seed=2)[::10]
    if how == "gap":
        source = Tv(len(before + after), gaps=(len(before),))
        source.live, source.sent = False, before + after
        stream = segmenter.stream(source, distant="first", options=options)
        found = list(stream)[len(before) :]
    else:
        stream = segmenter.stream(None, distant="first", options=options)
        for frame in before:
            stream.step(frame)
        if how == "cut":
            assert stream._cuts is not None
            stream._cuts = Told(stream._cuts.feature)
            stream._cuts.cut = True
        else:
            getattr(stream, how)()
        found = [stream.step(frame) for frame in after]
    alone = segmenter.stream(None, distant="first", options=replace(options, reset_on_cut=False))
    for result in found:
        expected = alone.step(result.frame)
        np.testing.assert_array_equal(result.logits, expected.logits)
        np.testing.assert_array_equal(result.labels, expected.labels)
    exact = segmenter.stream(None, distant="first", options=StreamOptions(logits=True, keyframes=keyframes))
    assert any(np.any(r.logits != exact.step(r.frame).logits) for r in found)  # it did smooth


def test_a_new_size_takes_nothing_from_the_past(bundle: Path) -> None:
    """The first frame of another size has its own logits, as without smoothing; from the second on it is smoothed."""
    segmenter = Segmenter.load(bundle)
    smooth, exact = (
        segmenter.stream(None, distant="first", options=StreamOptions(smooth=on, logits=True)) for on in (True, False)
    )
    pairs = [
        (smooth.step(frame), exact.step(frame))
        for size, seed in (((96, 160), 1), ((112, 168), 2))
        for frame in moving_frames(20, size, seed)[::5]
    ]
    same = [np.array_equal(a.logits, b.logits) for a, b in pairs]
    assert same == [True, False, False, False] * 2


def test_frames_are_counted_when_they_are_processed(bundle: Path) -> None:
    stream = Segmenter.load(bundle).stream(Tv(400, pause=0.004), queue=1, limit=6)
    count = 0
    for _ in stream:
        time.sleep(0.03)
        count += 1
    assert count == stream.index == 6
    assert stream.dropped > 6
    assert not readers()


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_reset_inside_a_loop_that_holds_labels(at: int, bundle: Path, tmp_path: Path) -> None:
    segmenter = Segmenter.load(bundle)
    stream = segmenter.stream(write_video(tmp_path / "v.mp4", moving_frames(8, (112, 168))), every=2)
    shown = []
    for number, result in enumerate(stream):
        shown.append(result)
        if number == at:
            stream.reset()
    assert len(shown) == 8
    assert [r.index for r in shown] == [*range(at + 1), *range(7 - at)]
    first = shown[at + 1]
    assert not first.held
    assert stream._distant.policy == "farthest"
    fresh = segmenter.stream(tmp_path / "v.mp4")
    assert np.array_equal(first.labels, fresh.step(first.frame, first.time).labels)


def test_reset_keeps_the_last_frame_of_the_video(bundle: Path, tmp_path: Path) -> None:
    """The distant frame of frame 0 is the last one, also after a reset."""
    frames = moving_frames(12, (112, 168))
    frames[-1] = 255 - frames[-1]
    stream = Segmenter.load(bundle).stream(write_video(tmp_path / "v.mp4", frames))
    first = [result.logits for result in stream]
    stream.reset()
    assert stream._distant.last is not None
    again = [result.logits for result in stream]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_loop_that_is_left_ends_its_reader_at_once(bundle: Path) -> None:
    """Without ``with`` and without a garbage collection, as in the example of the README."""
    segmenter, source = Segmenter.load(bundle), Tv(300, pause=0.002)
    for result in segmenter.stream(source):
        if result.index == 2:
            break
    assert not readers()
    assert source.closed == 1
    stream = segmenter.stream(Tv(300, pause=0.002))
    for _ in stream:
        break
    assert not readers()


def test_the_generator_of_a_source_is_closed(bundle: Path, tmp_path: Path) -> None:
    ended = threading.Event()

    class Careful(Tv):
        live = False

        def __iter__(self):
            try:
                yield from super().__iter__()
            finally:
                ended.set()

    with Segmenter.load(bundle).stream(Careful(50), limit=40) as stream:
        next(iter(stream))
    assert ended.is_set()
