"""Labels and floats of libov2vss are those of the Python runtime with the same engine, precision and threads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ov2vss_runtime import Segmenter, StreamOptions

from .conftest import Frames
from .library import ROOT, CEngine, CError

MANY = (
    "sky; road; car, automobile; tree; wall; dog; boat; lamp; tree trunk, bole; grass; water; sign; person; bus; roof"
)


def differing(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> int:
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    return int((one != other).sum())


def test_own_words_with_confidence_and_another_size(openvino: Segmenter, engine: CEngine, frames: Frames) -> None:
    ours = engine.stream(confidence=1)
    theirs = openvino.stream(options=StreamOptions(confidence=True, smooth=False))
    for number, frame in enumerate(frames):
        frame = frame if number % 5 else np.ascontiguousarray(frame[: 200 + 10 * number, :333])
        want, got = theirs.step(frame, number / 10), ours.step(frame, number / 10)
        assert differing(want.labels, got.labels) == 0
        assert differing(want.confidence, got.confidence) == 0
        logits = np.ctypeslib.as_array(got.result.logits, want.logits.shape)
        assert differing(want.logits, logits) == 0
        assert (got.result.index, got.result.time, got.result.age) == (number, number / 10, 0)
    ours.close()


def test_words_changed_held_restarted_and_reset(openvino: Segmenter, engine: CEngine, frames: Frames) -> None:
    ours, theirs = engine.stream(gap=2), openvino.stream(gap=2)
    more = engine.words(MANY)
    for number, frame in enumerate(frames[:14]):
        if number == 4:
            ours.set_words(more)
            theirs.set_vocabulary(MANY)
        if number == 7:
            ours.advance(frame)
            theirs.advance(frame)
        if number == 9:
            ours.restart()
            theirs.restart()
        if number == 12:
            ours.reset()
            theirs.reset()
        if number in (3, 10):
            want, got = theirs.hold(frame), ours.hold(frame.shape[:2])
            assert got.result.held == 1
        else:
            want, got = theirs.step(frame), ours.step(frame)
        assert differing(want.labels, got.labels) == 0
        assert (want.index, want.age) == (got.result.index, got.result.age)
    ours.close()


@pytest.mark.parametrize("policy", ["first", "farthest", "reservoir"])
def test_distant_frames(openvino: Segmenter, engine: CEngine, frames: Frames, policy: Any) -> None:
    number = {"first": 0, "farthest": 1, "reservoir": 2}[policy]
    ours = engine.stream(distant=number, seed=5)
    theirs = openvino.stream(distant=policy, options=StreamOptions(seed=5))
    for stream in (ours, theirs):
        stream.set_first(frames[-1], -1.0)
        if policy == "farthest":
            stream.set_last(frames[12], 0.5)
    for at, frame in enumerate(frames[:8]):
        want, got = theirs.step(frame, at / 10), ours.step(frame, at / 10)
        assert differing(want.labels, got.labels) == 0
    ours.close()


@pytest.mark.parametrize(
    ("c", "python"),
    [
        ({"top_classes": 4}, {"top_classes": 4}),
        ({"drop_absent": 0.3}, {"drop_absent": 0.3}),
        ({"top_classes": 5, "reset_on_cut": 1}, {"top_classes": 5, "reset_on_cut": True}),
        ({"unknown_below": 0.6, "reset_on_cut": 1}, {"unknown_below": 0.6, "reset_on_cut": True}),
    ],
)
def test_candidates_unknown_pixels_and_cuts(
    openvino: Segmenter, engine: CEngine, frames: Frames, c: dict[str, Any], python: dict[str, Any]
) -> None:
    ours = engine.stream(engine.words(MANY), confidence=1, **c)
    theirs = openvino.stream(vocabulary=MANY, options=StreamOptions(confidence=True, **python))
    cuts = []
    for number, frame in enumerate(frames[:14]):
        want, got = theirs.step(frame), ours.step(frame)
        assert list(want.classes) == got.result.classes[: got.result.rows]
        assert differing(want.labels, got.labels) == 0
        assert differing(want.confidence, got.confidence) == 0
        assert bool(got.result.cut) == want.cut
        if want.cut:
            cuts.append(number)
    assert cuts == ([10] if "reset_on_cut" in c else [])
    ours.close()


def test_background_and_rows_for_synonyms(openvino: Segmenter, engine: CEngine, frames: Frames) -> None:
    words = "road, street; car, automobile, van; sky"
    ours = engine.stream(engine.words(words, synonyms=2, background="tree; Building; sky; grass, lawn"))
    options = StreamOptions(synonyms="max", background=("tree", "Building", "sky", "grass", "lawn"))
    theirs = openvino.stream(vocabulary=words, options=options)
    for frame in frames[:3]:
        want, got = theirs.step(frame), ours.step(frame)
        assert list(want.classes) == got.result.classes[: got.result.rows]
        assert (want.labels == 255).any()
        assert differing(want.labels, got.labels) == 0
    ours.close()


def test_embeddings_of_typed_words_are_equal_to_the_bit(openvino: Segmenter, engine: CEngine) -> None:
    kinds, things = ("red", "old", "café", "naïve Über", "道路", "한국어"), ("car", "road sign", "jalapeño", "ﬁsh")
    words = "; ".join(f"{kind} {thing}, {thing} of {kind} {n}" for n, kind in enumerate(kinds) for thing in things)
    got = engine.embeddings(engine.words(words))
    stream = openvino.stream(vocabulary=words)
    assert got.shape == stream.embeddings.shape
    assert differing(stream.embeddings, got) == 0
    assert differing(openvino.stream().embeddings, engine.embeddings(engine.words())) == 0


def test_more_words_than_a_byte_holds(openvino: Segmenter, engine: CEngine, frames: Frames) -> None:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(300, 384)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = [f"word {n}" for n in range(300)]
    theirs = openvino.stream(vocabulary=names, embeddings=embeddings)
    import ctypes

    handle = ctypes.c_void_p()
    array = (ctypes.c_char_p * 300)(*[name.encode() for name in names])
    library = engine.library
    library.check(
        library.vocabulary_from_embeddings(engine.handle, array, 300, embeddings.ctypes.data, 384, ctypes.byref(handle))
    )
    ours = engine.stream(handle)
    want, got = theirs.step(frames[0]), ours.step(frames[0])
    assert got.labels.dtype == np.uint16
    assert differing(want.labels, got.labels) == 0
    assert got.result.unknown == 65535
    ours.close()


def test_a_stream_goes_on_in_the_other_runtime(openvino: Segmenter, engine: CEngine, frames: Frames) -> None:
    options = StreamOptions(top_classes=6, reset_on_cut=True, seed=3)
    chosen = {"top_classes": 6, "reset_on_cut": 1, "seed": 3, "distant": 2}
    theirs = openvino.stream(vocabulary=MANY, distant="reservoir", options=options)
    words = engine.words(MANY)
    ours = engine.stream(words, **chosen)
    for frame in frames[:5]:
        theirs.step(frame, 0.1)
        ours.step(frame, 0.1)
    onward = openvino.stream(vocabulary=MANY, distant="reservoir", options=options)
    onward.load(ours.save())
    further = engine.stream(words, **chosen)
    further.load(theirs.save())
    held = further.hold(frames[0].shape[:2])
    assert differing(theirs.hold(frames[0]).labels, held.labels) == 0
    onward.hold(frames[0])
    for frame in frames[5:9]:
        want = theirs.step(frame)
        assert differing(want.labels, onward.step(frame).labels) == 0
        got = further.step(frame)
        assert differing(want.labels, got.labels) == 0
        assert got.result.index == want.index
    ours.close()
    further.close()


def test_a_saved_stream_of_another_kind_is_refused_and_nothing_changes(engine: CEngine, frames: Frames) -> None:
    stream, other = engine.stream(), engine.stream(gap=2)
    other.step(frames[0])
    saved = other.save()
    first = stream.step(frames[0]).labels
    for data, part in ((saved, "gap"), (b"nonsense", "saved stream"), (saved[:5000], "saved stream"), (b"", "saved")):
        with pytest.raises(CError, match=part) as caught:
            stream.load(data)
        assert caught.value.status == 5
    damaged = stream.save().replace(b'"index\\": 1', b'"index\\": x')
    with pytest.raises(CError, match="saved stream"):
        stream.load(damaged)
    assert differing(first, stream.hold(frames[0].shape[:2]).labels) == 0
    stream.close()
    other.close()


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_other_precisions(frames: Frames, precision: str) -> None:
    openvino = pytest.importorskip("openvino")
    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(CError, match="no bfloat16"):
            CEngine(precision="bf16")
        return
    ours = CEngine(threads=1, precision=precision)
    stream, theirs = ours.stream(), Segmenter.load(backend="openvino", threads=1, precision=precision).stream()
    for frame in frames[:6]:
        assert differing(theirs.step(frame).labels, stream.step(frame).labels) == 0
    stream.close()
    ours.close()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime(frames: Frames, precision: str) -> None:
    from pathlib import Path

    from .library import BUILD

    if not (BUILD / "libov2vss_ort.so").exists():
        pytest.skip("built without ONNX Runtime's headers (OV2VSS_ORT_INCLUDE)")
    runtime = pytest.importorskip("onnxruntime")
    library = next((Path(runtime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    ours = CEngine(threads=1, backend="onnxruntime", precision=precision, runtime=str(library))
    theirs = Segmenter.load(threads=1, precision=precision)
    words = ours.words(MANY)
    one, other = (
        ours.stream(words, confidence=1),
        theirs.stream(vocabulary=MANY, options=StreamOptions(confidence=True)),
    )
    assert differing(other.embeddings, ours.embeddings(words)) == 0
    for frame in frames[:6]:
        want, got = other.step(frame), one.step(frame)
        assert differing(want.labels, got.labels) == 0
        assert differing(want.confidence, got.confidence) == 0
    one.close()
    ours.close()


def test_rows_with_space_between_them_and_other_colour_orders(engine: CEngine, frames: Frames) -> None:
    import ctypes

    from .library import Image, Result, image_of

    plain, strange = engine.stream(), engine.stream()
    frame = frames[0]
    want = plain.step(frame).labels
    wide = np.zeros((360, 700, 3), np.uint8)
    wide[:, :640] = frame[..., ::-1]
    image = image_of(wide[:, :640], form=1)
    labels = np.full((360, 800), 99, np.uint16)
    result = Result(labels=labels.ctypes.data, label_bytes=2, label_stride=labels.strides[0])
    library = engine.library
    library.check(library.stream_step(strange.handle, ctypes.byref(image), 0.0, ctypes.byref(result)))
    assert differing(want.astype(np.uint16), labels[:, :640]) == 0
    assert (labels[:, 640:] == 99).all()
    # NV12 of grey is grey.
    luma, chroma = np.full((360, 640), 126, np.uint8), np.full((180, 640), 128, np.uint8)
    nv12 = Image(
        format=2, width=640, height=360, planes=(ctypes.c_void_p * 2)(luma.ctypes.data, chroma.ctypes.data), matrix=1
    )
    for stream in (plain, strange):
        stream.reset()
    grey = plain.step(np.full((360, 640, 3), round((126 - 16) * 255 / 219), np.uint8)).labels
    got = np.empty((360, 640), np.uint8)
    result = Result(labels=got.ctypes.data)
    library.check(library.stream_step(strange.handle, ctypes.byref(nv12), 0.0, ctypes.byref(result)))
    assert differing(grey, got) == 0
    plain.close()
    strange.close()


@pytest.mark.parametrize("candidates", [0, 2])
def test_the_constant_of_words_that_training_saw(frames: Frames, tmp_path: Path, candidates: int) -> None:
    folder = Path(shutil.copytree(ROOT / "tests/vectors/bundle", tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["class_offset"], manifest["source"]["trained_classes"] = -0.5, ["Road, street", "Straße"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    text = "tree; lane, ROAD; strasse; sky"
    theirs = Segmenter.load(folder, backend="openvino", threads=1).stream(
        vocabulary=text, options=StreamOptions(logits=True, smooth=False, top_classes=candidates)
    )
    engine = CEngine(folder, threads=1)
    ours = engine.stream(top_classes=candidates)
    ours.set_words(engine.words(text))
    for frame in frames[:6]:
        want, got = theirs.step(frame), ours.step(frame)
        assert differing(want.logits, np.ctypeslib.as_array(got.result.logits, want.logits.shape)) == 0
        assert differing(want.labels, got.labels) == 0
    ours.close()
    engine.close()
