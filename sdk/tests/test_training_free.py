"""Training-free bundles (a CLIP without training) in libov2vss: labels and floats are those of the Python runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ov2vss_runtime import Segmenter, StreamOptions

from .conftest import Frames
from .library import MOTION, CEngine, CError

pytest.importorskip("openvino")
WORDS = "camel; sand, desert; fence; sky; traffic light; café; old man; 3 dogs; water; grass"


@pytest.fixture(scope="module", params=["alone", "affinity"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Segmenter, Any]]:
    """The same bundle of a small CLIP with random weights in either runtime: frames alone, and with a memory."""
    open_clip = pytest.importorskip("open_clip")
    from ov2vss.clip_source import ClipSource
    from ov2vss_export.clip_writer import ClipRequest, export_clip
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    folder = tmp_path_factory.mktemp("clip")
    tower = {"layers": 3, "width": 32}
    vision = tower | {"image_size": 32, "head_width": 16, "patch_size": 8}
    text = tower | {"context_length": 77, "vocab_size": 49408, "heads": 2}
    (folder / "sdk-clip.json").write_text(json.dumps({"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder / "sdk-clip.json")
    export_clip(
        ClipRequest(
            checkpoint=None,  # type: ignore[arg-type]  # there is none
            vocabulary=Vocabulary.parse("sky; dog"),
            out=folder / "bundle",
            size=(64, 112),
            rollout=45,
            decoder_parts=False,
            model="sdk-clip",
            tag="",
            source=ClipSource("random"),
            dense="calibrated" if request.param == "alone" else "neighbour",
            affinity=request.param == "affinity",
        )
    )
    with pytest.MonkeyPatch.context() as patched:
        # Words that another engine has encoded before keep that engine's last bits in the Python runtime's cache.
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        made = CEngine(folder / "bundle", threads=1)
        yield Segmenter.load(folder / "bundle", "openvino", threads=1), made
        made.close()


def same(want: npt.NDArray[Any], got: npt.NDArray[Any]) -> bool:
    return want.dtype == got.dtype and np.array_equal(want, got)


@pytest.mark.parametrize(
    "options",
    [{}, {"unknown_below": 0.2}, {"reset_on_cut": 1}, {"drop_absent": 0.15}, {"top_classes": 4}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_labels_confidence_and_logits(both: tuple[Segmenter, CEngine], frames: Frames, options: dict[str, Any]) -> None:
    python, c = both
    theirs = python.stream(None, WORDS, options=StreamOptions(confidence=True, smooth=False, **options))
    ours = c.stream(c.words(WORDS), confidence=1, **options)
    for number, frame in enumerate(frames[:14]):
        if number == 6:
            theirs.restart()
            ours.restart()
        want, got = theirs.step(frame, number / 10), ours.step(frame, number / 10)
        assert same(want.labels, got.labels)
        assert same(want.confidence, got.confidence)
        assert bool(got.result.cut) == want.cut
        assert same(want.logits, np.ctypeslib.as_array(got.result.logits, want.logits.shape))
    ours.close()


def test_embeddings_of_words_and_rows_for_synonyms(both: tuple[Segmenter, CEngine], frames: Frames) -> None:
    python, c = both
    assert same(python.stream(None, WORDS).embeddings, c.embeddings(c.words(WORDS)))
    options = StreamOptions(synonyms="max", background=("wall", "grass", "lawn"))
    theirs = python.stream(None, WORDS, options=options)
    ours = c.stream(c.words(WORDS, synonyms=2, background="wall; grass, lawn"))
    for frame in frames[:3]:
        assert same(theirs.step(frame).labels, ours.step(frame).labels)
    ours.close()


def test_words_change_and_a_stream_goes_on_in_the_other_runtime(
    both: tuple[Segmenter, CEngine], frames: Frames
) -> None:
    python, c = both
    theirs, ours = python.stream(None, "sky; dog"), c.stream(c.words("sky; dog"))
    for frame in frames[:3]:
        assert same(theirs.step(frame).labels, ours.step(frame).labels)
    theirs.set_vocabulary(WORDS)
    ours.set_words(c.words(WORDS))
    assert same(theirs.step(frames[3]).labels, ours.step(frames[3]).labels)
    onward = python.stream(None, WORDS)
    onward.load(ours.save())
    further = c.stream(c.words(WORDS))
    further.load(theirs.save())
    for frame in frames[4:7]:
        want = theirs.step(frame)
        assert same(want.labels, onward.step(frame).labels)
        assert same(want.labels, further.step(frame).labels)
    ours.close()
    further.close()


def test_a_bundle_with_a_memory_is_not_blended_twice(both: tuple[Segmenter, CEngine]) -> None:
    python, c = both
    motion = MOTION(lambda *_: 0)
    if python.bundle.manifest.temporal:
        with pytest.raises(CError, match="blend frames already; leave smooth out"):
            c.stream(smooth=1, motion=motion)
    else:
        c.stream(smooth=1, motion=motion).close()


def test_a_damaged_graph_is_refused_by_name(both: tuple[Segmenter, CEngine], tmp_path: Path) -> None:
    folder = copytree(both[0].bundle.folder, tmp_path / "copy")
    graph = folder / "stcf_step.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(CError, match=r"stcf_step\.onnx"):
        CEngine(folder, threads=1)
