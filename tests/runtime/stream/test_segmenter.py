"""The library as an embedding product uses it: shared between threads, words changed on the way, left in the middle."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import StreamOptions
from tests.conftest import moving_frames, write_video


def test_threads_share_a_segmenter(bundle: Path) -> None:
    """Four streams at once, each with words of its own, equal four runs one after the other, bit for bit."""
    clips = [moving_frames(10, (112, 168), seed=k) for k in range(4)]
    lists = ["background; red circle", "sky; tree; road", "zebra; blue square; cross", "a; b"]

    def run(segmenter: Segmenter, index: int) -> list[np.ndarray]:
        stream = segmenter.stream(None, lists[index], gap=2)
        return [stream.logits(frame) for frame in clips[index]]

    alone = [run(Segmenter.load(bundle), k) for k in range(4)]
    shared = Segmenter.load(bundle)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda k: run(shared, k), range(4)))
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_words_changed_on_the_way_equal_words_from_the_start(bundle: Path) -> None:
    segmenter, frames = Segmenter.load(bundle), moving_frames(10, (112, 168))
    new = "green triangle; red circle; background; something else"
    whole = [segmenter.stream(None, new).step(f) for f in frames[:1]]
    stream, reference = segmenter.stream(None, "sky; road"), segmenter.stream(None, new)
    for index, frame in enumerate(frames):
        if index == 6:
            stream.set_vocabulary(new)
        result, wanted = stream.step(frame), reference.step(frame)
        if index < 6:
            assert result.names == ["sky", "road"]
        else:
            assert result.names == wanted.names
            assert np.array_equal(result.logits, wanted.logits)
            assert np.array_equal(result.labels, wanted.labels)
    assert np.array_equal(whole[0].labels, segmenter.stream(None, new).step(frames[0]).labels)


def test_words_are_encoded_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter.load(bundle)
    encoded: list[str] = []
    original = segmenter.engine.encode_new
    monkeypatch.setattr(segmenter.engine, "encode_new", lambda texts: (encoded.extend(texts), original(texts))[1])
    stream = segmenter.stream(None, "tulip; rose")
    first = stream.embeddings.copy()
    stream.set_vocabulary("rose; daisy; tulip")
    templates = len(segmenter.bundle.manifest.vocabulary.templates)
    assert len(encoded) == 3 * templates
    assert np.allclose(stream.embeddings[[2, 0]], first, atol=1e-7)


def test_a_stream_left_in_the_middle_stops_reading(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", moving_frames(60, (112, 168)))
    segmenter = Segmenter.load(bundle)
    with segmenter.stream(video) as stream:
        for result in stream:
            if result.index == 3:
                break
    assert not [t for t in threading.enumerate() if t.name == "ov2vss-reader"]
    assert [r.index for r in segmenter.stream(video, limit=5)] == [0, 1, 2, 3, 4]
    assert result.overlay().shape == (112, 168, 3)


def test_options_that_make_no_sense(bundle: Path) -> None:
    segmenter = Segmenter.load(bundle)
    with pytest.raises(OV2VSSError, match="every=0"):
        segmenter.stream(None, every=0)
    with pytest.raises(OV2VSSError, match="top_classes=-1"):
        segmenter.stream(None, options=StreamOptions(top_classes=-1))


def test_all_classes_as_candidates_is_the_whole_vocabulary(bundle: Path) -> None:
    segmenter, frames = Segmenter.load(bundle), moving_frames(4, (112, 168))
    words = [f"thing {k}" for k in range(40)]
    whole, pruned = (segmenter.stream(None, words, options=StreamOptions(top_classes=k)) for k in (0, 40))
    few = segmenter.stream(None, words, options=StreamOptions(top_classes=10))
    for frame in frames:
        want = whole.step(frame)
        assert np.array_equal(want.labels, pruned.step(frame).labels)
        some = few.step(frame)
        assert len(some.classes) == 10
        # The logits of a candidate do not depend on who else is one.
        assert np.abs(some.logits - want.logits[some.classes]).max() < 1e-4 * np.abs(want.logits).max()


def test_what_a_python_caller_sees(bundle: Path, tmp_path: Path) -> None:
    segmenter = Segmenter.load(bundle, threads=1)
    assert segmenter.size == segmenter.bundle.manifest.preprocess.size
    assert segmenter.names == segmenter.bundle.default_vocabulary.names
    assert segmenter.precision == "fp32"
    h, w = segmenter.size
    assert f"{len(segmenter.names)} words, {h}x{w}, fp32, OrtEngine with 1 threads" in repr(segmenter)
    video = write_video(tmp_path / "walk.mp4", moving_frames(3, (112, 168)))
    stream = segmenter.stream(video, {"red circle": ["red disc", "scarlet circle"], "background": None})
    assert repr(stream) == f"<SegmenterStream of 'walk' at frame 0: 2 words, gap {stream.gap}>"
    result = next(iter(stream))
    stream.close()
    assert repr(result).startswith("<Result 0, 0.00 s: 112x168, ")
    assert "%" in repr(result)
    assert len(repr(result)) < 120
    assert result.size == (112, 168)


def test_numbers_that_are_none_are_errors_that_name_the_argument(bundle: Path) -> None:
    segmenter = Segmenter.load(bundle)
    with pytest.raises(OV2VSSError, match="gap 0 is not possible"):
        segmenter.stream(None, gap=0)
    for name in ("every", "limit", "queue"):
        with pytest.raises(OV2VSSError, match=f"{name}=0"):
            segmenter.stream(None, **{name: 0})
    for threads in (0, -1):
        with pytest.raises(OV2VSSError, match=f"threads={threads}"):
            Segmenter.load(bundle, threads=threads)


def test_iterating_twice_begins_anew(bundle: Path, tmp_path: Path) -> None:
    """Also after leaving the loop early, and with the last frame as the distant one."""
    video = write_video(tmp_path / "walk.mp4", moving_frames(6, (112, 168)))
    segmenter = Segmenter.load(bundle)
    wanted = [(r.index, r.logits) for r in segmenter.stream(video, gap=2)]
    stream = segmenter.stream(video, gap=2)
    for result in stream:
        if result.index == 3:
            break
    for _ in range(2):
        again = [(r.index, r.logits) for r in stream]
        assert [i for i, _ in again] == [i for i, _ in wanted] == list(range(6))
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(again, wanted, strict=True))
    stream.close()
