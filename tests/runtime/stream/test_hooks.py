"""Hooks of a stream: first and last frames from outside, advance without labels, save and load, restart, reset."""

from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import Stream
from tests.conftest import moving_frames
from tests.hand_made import HandMade

WORDS = "road; sky; car; tree; dog"


@pytest.fixture(scope="module")
def segmenter(bundle: Path) -> Segmenter:
    return Segmenter.load(bundle)


def _video(stream: Stream, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Logits and labels of a video whose last frame is known."""
    stream.set_last(frames[-1], len(frames) - 1.0)
    return [stream.step(frame, float(t)).logits for t, frame in enumerate(frames)]


def test_a_part_of_a_video_has_the_labels_of_the_whole(segmenter: Segmenter) -> None:
    """First and last frame given, n * gap frames ahead without labels: the same bits from then on."""
    frames, memory = moving_frames(24, (128, 192)), segmenter.bundle.manifest.memory
    whole = _video(segmenter.stream(None, WORDS, distant="farthest"), frames)
    assert memory == segmenter.bundle.manifest.references * segmenter.bundle.manifest.gap
    begin = 14
    part = segmenter.stream(None, WORDS, distant="farthest")
    part.set_first(frames[0], 0.0)
    part.set_last(frames[-1], 23.0)
    for t in range(begin - memory, begin):
        assert part.advance(frames[t], float(t)) is None
    for t in range(begin, 24):
        assert np.array_equal(part.logits(frames[t], float(t)), whole[t])
    # One frame less ahead, or another first frame, and it is not.
    for first, ahead in ((frames[0], memory - 1), (frames[5], memory)):
        other = segmenter.stream(None, WORDS, distant="farthest")
        other.set_first(first, 0.0)
        other.set_last(frames[-1], 23.0)
        for t in range(begin - ahead, begin):
            other.advance(frames[t], float(t))
        assert not np.array_equal(other.logits(frames[begin], float(begin)), whole[begin])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("distant", "options"),
    [
        ("farthest", StreamOptions()),
        ("reservoir", StreamOptions(seed=3)),
        ("first", StreamOptions(reset_on_cut=True, top_classes=3, confidence=True)),
    ],
)
def test_a_saved_stream_goes_on_with_the_same_bits(
    bundle: Path, backend: str, distant: str, options: StreamOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(backend)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frames = moving_frames(8, (128, 192)) + moving_frames(8, (128, 192), seed=9)
    segmenter = Segmenter.load(bundle, backend)

    def stream() -> Stream:
        return segmenter.stream(None, WORDS, gap=2, distant=distant, options=options)

    whole = stream()
    whole.set_last(frames[-1], 15.0)
    wanted = [whole.step(frame, float(t)) for t, frame in enumerate(frames)]
    one, other = stream(), stream()
    one.set_last(frames[-1], 15.0)
    for t in range(7):
        one.step(frames[t], float(t))
    data = one.save()
    assert isinstance(data, bytes)
    one.step(frames[9])  # what the first stream does afterwards is its own affair
    other.load(data)
    assert np.array_equal(other.hold(frames[6], 6.5).labels, wanted[6].labels)
    other.load(data)
    for t in range(7, 16):
        have = other.step(frames[t], float(t))
        assert (have.index, have.cut) == (t, wanted[t].cut)
        assert np.array_equal(have.logits, wanted[t].logits)
        assert np.array_equal(have.labels, wanted[t].labels)
        assert np.array_equal(have.classes, wanted[t].classes)


def test_a_stream_is_loaded_only_where_it_can_go_on(segmenter: Segmenter, tmp_path: Path) -> None:
    frames = moving_frames(3, (128, 192))
    stream = segmenter.stream(None, WORDS, gap=2)
    stream.step(frames[0])
    data = stream.save()
    with pytest.raises(OV2VSSError, match=r"the saved stream has gap 2, this one 3"):
        segmenter.stream(None, WORDS, gap=3).load(data)
    with pytest.raises(OV2VSSError, match=r"the saved stream has distant first, this one reservoir"):
        segmenter.stream(None, WORDS, gap=2, distant="reservoir").load(data)
    others = Segmenter.load(HandMade(state=True).write(tmp_path / "own"))
    with pytest.raises(OV2VSSError, match=r"the saved stream has model"):
        others.stream(None, "road; sky", gap=2).load(data)
    for wrong in (b"", b"nothing", data[:100], b"\x00" * 64):
        with pytest.raises(OV2VSSError, match="this is not a saved stream"):
            stream.load(wrong)


def test_words_may_differ_where_a_stream_goes_on(segmenter: Segmenter) -> None:
    frames = moving_frames(6, (128, 192))
    one = segmenter.stream(None, "road; sky; car; tree", options=StreamOptions(top_classes=2))
    for frame in frames[:3]:
        one.step(frame)
    other = segmenter.stream(None, "dog; sea; sky", options=StreamOptions(top_classes=2))
    other.load(one.save())
    one.set_vocabulary("dog; sea; sky")
    for frame in frames[3:]:
        have, want = other.step(frame), one.step(frame)
        assert np.array_equal(have.logits, want.logits)
        assert have.names == ["dog", "sea", "sky"]


def test_restart_forgets_the_past_and_keeps_the_last_frame(segmenter: Segmenter) -> None:
    frames = moving_frames(10, (128, 192))
    stream, fresh = (segmenter.stream(None, WORDS, distant="farthest") for _ in range(2))
    for s in (stream, fresh):
        s.set_last(frames[-1], 9.0)
    for t in range(4):
        stream.step(frames[t], float(t))
    stream.restart()
    have, want = stream.step(frames[6], 6.0), fresh.step(frames[6], 6.0)
    assert np.array_equal(have.logits, want.logits)
    assert (have.index, want.index) == (4, 0)
    stream.reset()
    assert stream.step(frames[6], 6.0).index == 0
