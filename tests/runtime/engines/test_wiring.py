"""Graphs are wired by the names that the manifest lists: bundles that share no tensor name with the trained ones."""

from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.gates import gate_class_counts, gate_reset
from ov2vss_runtime.bundle.parity import graph_inputs, run_graphs
from ov2vss_runtime.bundle.rollout import stream_maker
from ov2vss_runtime.engines.backends import load_engine
from ov2vss_runtime.errors import BundleError, OV2VSSError
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames
from tests.hand_made import WIDTH, HandMade

KINDS = {
    "no state": HandMade(),
    "no step": HandMade(step=False),
    "state": HandMade(state=True),
    "state with warm-up": HandMade(state=True, warmup=2),
    "distant frame": HandMade(distant=True),
    "all": HandMade(state=True, warmup=3, distant=True),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_bundle_of_its_own_names_streams_as_numpy_does(kind: str, backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    made, frames, words = KINDS[kind], moving_frames(7, (70, 100)), ["road", "sky", "car", "tree", "dog"]
    bundle = made.write(tmp_path / "own")
    for gap in (1, 3):
        stream = Segmenter.load(bundle, backend).stream(None, words, gap=gap)
        wanted = made.logits(frames, words, gap)
        for frame, want in zip(frames, wanted, strict=True):
            have = stream.step(frame)
            assert np.abs(have.logits - want).max() < 1e-4
            assert have.labels.shape == frame.shape[:2]
        stream.set_vocabulary(words[:2])
        assert stream.step(frames[0]).names == words[:2]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_gates_of_an_engine_follow_the_manifest(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    for name, made in KINDS.items():
        bundle = Bundle.open(made.write(tmp_path / name.replace(" ", "-")))
        engine = load_engine(bundle, backend)
        graphs = bundle.manifest.variants["fp32"].graphs
        scales = {f"{g}.{t.name}": 1.0 for g, info in graphs.items() for t in info.inputs}
        feeds = graph_inputs(bundle.manifest, scales, engine.text_feed)
        assert list(feeds) == [g for g in ("text", "backbone", "stcf_step", "decoder") if g in graphs]
        outputs = run_graphs(engine, feeds)
        assert {k.split(".")[1] for k in outputs} == {t.name for info in graphs.values() for t in info.outputs}
        frames = moving_frames(8, engine.size)
        words = np.eye(WIDTH, dtype=np.float32)[:3]
        assert gate_reset(stream_maker(engine, bundle.manifest, words), frames).passed
        assert gate_class_counts(engine, frames[0]).passed


def test_the_distant_frame_is_the_last_one_where_that_is_farther(tmp_path: Path) -> None:
    made, frames = HandMade(distant=True), moving_frames(6)
    stream = Segmenter.load(made.write(tmp_path / "own")).stream(None, "road; sky", distant="farthest")
    stream.set_last(frames[-1], 5.0)
    first, last = (made.logits(frames, ["road", "sky"], distant=f) for f in (frames[0], frames[-1]))
    for t, frame in enumerate(frames):
        want = last[t] if 5 - t > t else first[t]
        assert np.abs(stream.logits(frame, float(t)) - want).max() < 1e-4


def test_without_a_distant_frame_none_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segmenter = Segmenter.load(HandMade().write(tmp_path / "own"))
    assert not segmenter.engine.can.distant
    segmenter.stream(None, "road; sky", distant="reservoir")
    assert "looks at every frame alone: a distant frame has no effect" in caplog.text


def test_cuts_and_candidates_read_the_features_that_the_manifest_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # Two shots of one colour each, with a texture that tells them apart and does not change the nearest words.
    blocks = [np.add(colour, rng.integers(-12, 13, (8, 12, 3))) for colour in ((200, 60, 40), (40, 60, 200))]
    shots = [b.astype(np.uint8).repeat(8, 0).repeat(8, 1) for b in blocks]
    segmenter = Segmenter.load(HandMade(state=True).write(tmp_path / "own"))
    stream = segmenter.stream(None, "road; sky; car; tree", options=StreamOptions(reset_on_cut=True, top_classes=2))
    results = [stream.step(shots[k]) for k in (0, 0, 1, 1, 0)]
    assert [r.cut for r in results] == [False, False, True, False, True]
    cosines = HandMade.embeddings(["road", "sky", "car", "tree"]) @ HandMade.features(shots[0]).reshape(WIDTH, -1)
    nearest = np.sort(np.argsort((cosines - cosines.max(0)).max(1))[-2:])
    assert results[0].classes.tolist() == nearest.tolist()
    blind = Segmenter.load(HandMade().write(tmp_path / "blind", cut=None, dense={"output": "nothing"}))
    for option, what in (({"reset_on_cut": True}, "shot changes"), ({"top_classes": 2}, "candidates")):
        with pytest.raises(OV2VSSError, match=f"no feature that shows {what}"):
            blind.stream(None, "road; sky", options=StreamOptions(**option))


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        (HandMade(state=True), {"state": None}, "stcf_step of fp32 asks for memory, which neither"),
        (HandMade(distant=True), {"distant": ["gone"]}, None),
        (HandMade(), {"state": {"input": "a", "output": "b", "shape": [1], "warmup": 0}}, "does not carry the state a"),
        (
            HandMade(step=False),
            {"state": {"input": "a", "output": "b", "shape": [1], "warmup": 0}},
            "stcf_step of fp32 is missing",
        ),
    ],
)
def test_a_graph_that_asks_for_what_nobody_gives_is_named(
    made: HandMade, changes: dict, message: str | None, tmp_path: Path
) -> None:
    folder = made.write(tmp_path / "own", **changes)
    if message is None:  # a feature that is not of the distant frame is the frame's own
        assert not Segmenter.load(folder).engine.can.distant
        return
    with pytest.raises(BundleError, match=message):
        Segmenter.load(folder)


def test_format_1_is_refused_and_format_2_loads_with_defaults(bundle: Path, tmp_path: Path) -> None:
    import json
    import shutil

    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    manifest = json.loads((old / "manifest.json").read_text())
    kept = manifest.keys() - {
        "kind", "distant", "dense", "cut", "temperature", "class_offset", "unknown_below", "temporal", "store"
    }  # fmt: skip
    second = {k: manifest[k] for k in kept} | {"format_version": 2, "postprocess": {"argmax": "runtime"}}
    second["vocabulary"] = {k: second["vocabulary"][k] for k in ("entries", "templates", "embed_dim")}
    (old / "manifest.json").write_text(json.dumps(second))
    found = Bundle.open(old).manifest
    assert (found.kind, found.store, found.vocabulary.synonyms, found.class_offset) == (
        "trained", "fp32", "average", 0,
    )  # fmt: skip
    assert (found.cut.output, found.cut.level, found.cut.threshold, found.distant) == ("tokens", 2, 0.6, ["context"])
    frame = moving_frames(1)[0]
    new, same = (Segmenter.load(b).stream(None, "road; car") for b in (bundle, old))
    assert np.array_equal(new.logits(frame), same.logits(frame))
    (old / "manifest.json").write_text(json.dumps(second | {"format_version": 1}))
    with pytest.raises(BundleError, match="format version 1, this program reads 2 and 3"):
        Bundle.open(old)
