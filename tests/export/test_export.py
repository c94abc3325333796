"""Bundles: what the gates accept, what they refuse, and what the runtime refuses to load."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ov2vss import checkpoint
from ov2vss.model import ModelConfig
from ov2vss.text import build_text_encoder
from ov2vss_export import verify
from ov2vss_export.bundle_writer import ExportRequest, export_bundle
from ov2vss_export.graphs import build_graphs
from ov2vss_export.text_weights import quantize_weights
from ov2vss_runtime.bundle import Bundle, file_sha256
from ov2vss_runtime.errors import BundleError, OV2VSSError
from ov2vss_runtime.ort_engine import OrtEngine
from ov2vss_runtime.segmenter import Segmenter
from ov2vss_runtime.vocabulary import Vocabulary
from tests.conftest import TrainedRun

CONTRACT = {
    "text": ({"tokens", "attention_mask"}, {"embeddings"}),
    "backbone": (
        {"frame"},
        {"feat_s8", "feat_s16", "feat_s32", "tokens", "context", "dense", "text_memory", "position"},
    ),
    "stcf_step": (
        {"feat_s8", "feat_s16", "feat_s32", "tokens", "context", "position", "state_in"},
        {"guidance", "state_out"},
    ),
    "decoder": ({"guidance", "dense", "text_memory", "class_embeddings"}, {"logits"}),
}


def test_graph_contract(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    graphs = manifest.graphs["fp32"]
    for name, (inputs, outputs) in CONTRACT.items():
        info = graphs[name]
        assert ({t.name for t in info.inputs}, {t.name for t in info.outputs}) == (inputs, outputs)
        proto = onnx.load(bundle / info.file)
        identity = {p.key: p.value for p in proto.metadata_props}
        assert identity["checkpoint_sha256"] == manifest.source["checkpoint_sha256"]
        assert identity["graph"] == name
        dynamic = {d for t in (*info.inputs, *info.outputs) for d in t.shape if isinstance(d, str)}
        assert dynamic <= {"text": {"B", "L"}, "decoder": {"N"}}.get(name, set())
    frame = graphs["backbone"].inputs[0]
    assert (frame.dtype, frame.shape) == ("uint8", [1, 128, 192, 3])
    state = next(t for t in graphs["stcf_step"].inputs if t.name == "state_in")
    assert state.shape == [3, 4, 24 + 6 + 4 + 2, 32]


def test_gates_passed_and_are_recorded(bundle: Path) -> None:
    verified = json.loads((bundle / "manifest.json").read_text())["verified"]
    assert verified["passed"] is True
    gates = {g["gate"]: g for g in verified["gates"]}
    assert gates["roll-out label agreement"]["value"] >= 0.999
    for graph in ("backbone", "stcf_step", "decoder"):
        assert gates[f"{graph} against torch"]["value"] < 1e-3
    assert "pass" in (bundle / "README.md").read_text()


@pytest.mark.parametrize("name", ["backbone", "stcf_step", "decoder"])
def test_gate_1_names_a_graph_that_differs(trained: TrainedRun, bundle: Path, name: str) -> None:
    """Five per cent noise on one weight of the torch side: only that graph's line fails."""
    found = checkpoint.find(trained.folder)
    model = found.build()
    parameter = {
        "backbone": model.image_encoder.project.weight,
        "stcf_step": model.stcf.merge_values.weight,
        "decoder": model.text_refinement.ffn[1].weight,
    }[name]
    with torch.no_grad():
        torch.manual_seed(0)
        parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    encoder = build_text_encoder(model.config)
    engine = OrtEngine(Bundle.open(bundle))
    frames = verify.generated_frames(engine.size, 4)
    gates = verify.gate_graphs(engine, build_graphs(model, encoder, engine.size), frames[0])
    assert [g.name.split()[0] for g in gates if not g.passed] == [name]


def test_gate_2_sees_a_wrong_ring(trained: TrainedRun, bundle: Path) -> None:
    """A stream with another gap than the clips must not pass the roll-out."""
    found = checkpoint.find(trained.folder)
    opened = Bundle.open(bundle)
    engine = OrtEngine(opened)
    words = opened.default_vocabulary
    embeddings = opened.cached_embeddings(words, "fp32")
    model = found.build()
    frames = verify.generated_frames(engine.size, 24)

    def error(stream_gap: int) -> float:
        class OtherGap(verify.ClipReference):
            def __init__(self, model, gap, text) -> None:
                super().__init__(model, 3, text)

        original, verify.ClipReference = verify.ClipReference, OtherGap
        try:
            return verify.rollout(engine, model, words, embeddings, ("{}",), stream_gap, frames).error
        finally:
            verify.ClipReference = original

    assert error(3) < 1e-4
    assert error(2) > 1e-3


def test_runtime_uses_the_cache_only_for_exactly_these_words(bundle: Path) -> None:
    segmenter = Segmenter.load(bundle)
    words = segmenter.bundle.default_vocabulary
    cached = segmenter.embeddings(words)
    assert cached is not None
    fresh = segmenter.engine.encode_text(words.names)
    assert np.allclose(cached, fresh, atol=1e-6)
    assert segmenter.embeddings(Vocabulary.parse("red circle; background")) is None


def test_words_at_run_time_equal_torch(trained: TrainedRun, bundle: Path) -> None:
    found = checkpoint.find(trained.folder)
    encoder = build_text_encoder(found.run.train.model)
    texts = ["red circle", "a photo of a blue square", "zebra", "Purple  CROSS", "x " * 60]
    got = Segmenter.load(bundle).engine.encode_text(texts)
    assert np.allclose(got, encoder.encode(texts).numpy(), atol=1e-5)
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def test_ablated_models_are_refused(trained: TrainedRun, tmp_path: Path) -> None:
    found = checkpoint.find(trained.folder)
    config = ModelConfig.model_validate(found.run.train.model.model_dump() | {"rfe": False})
    run = found.run.model_copy(update={"train": found.run.train.model_copy(update={"model": config})})
    request = ExportRequest(
        checkpoint.Checkpoint(run, found.folder, found.state), Vocabulary.parse("a"), tmp_path / "b", (128, 192)
    )
    with pytest.raises(OV2VSSError, match="without rfe"):
        export_bundle(request)
    assert not list(tmp_path.iterdir())


def test_a_failing_gate_leaves_nothing(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "GRAPH_BOUND", 1e-12)
    request = ExportRequest(
        checkpoint.find(trained.folder), Vocabulary.parse("red circle; background"), tmp_path / "b", (64, 64)
    )
    with pytest.raises(OV2VSSError, match="parity gate failed: backbone against torch"):
        export_bundle(request)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "file", ["backbone.onnx", "stcf_step.onnx", "decoder.onnx", "text.onnx", "tokenizer.json", "vocabulary.safetensors"]
)
def test_one_flipped_byte_is_refused(bundle: Path, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    with pytest.raises(BundleError, match=f"{file} is not the file that was exported"):
        Bundle.open(copy)


def _edit(folder: Path, change) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=99), "format version 99"),
        (lambda d: d.pop("format_version"), "format version None"),
        (lambda d: d["graphs"]["fp32"].pop("decoder"), "no graph decoder"),
        (lambda d: d["graphs"]["fp32"]["text"].update(file="../text.onnx"), "not a plain file name"),
        (lambda d: d["graphs"]["fp32"]["text"].update(file="/etc/passwd"), "not a plain file name"),
        (lambda d: d["graphs"]["fp32"]["text"].update(file="other.onnx"), "other.onnx is missing"),
        (lambda d: d["graphs"]["fp32"]["text"].update(sha256="0" * 64), "sha256 differs"),
        (lambda d: d["graphs"].clear(), "no graphs"),
        (lambda d: d.update(gap=0), "gap"),
    ],
)
def test_bad_manifests_are_refused(bundle: Path, tmp_path: Path, change, message: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    _edit(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_unreadable_bundles(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a folder nor built in"):
        Bundle.open("no-such-bundle")
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{" * 10_000)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b" " * (9 * 2**20))
    with pytest.raises(BundleError, match="9437184 bytes"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="no precision 'fp16'"):
        Bundle.open(bundle).graph_file("fp16", "text")


def test_a_linked_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    outside = tmp_path / "outside.onnx"
    shutil.move(copy / "text.onnx", outside)
    (copy / "text.onnx").symlink_to(outside)
    assert file_sha256(copy / "text.onnx") == file_sha256(outside)
    with pytest.raises(BundleError, match=r"text\.onnx is missing"):
        Bundle.open(copy)


def test_minilm_text_graph_in_int8(tmp_path: Path) -> None:
    """The real text encoder: the float32 graph equals torch at many prompt lengths, int8 keeps the directions."""
    import onnxruntime

    from ov2vss_export.graphs import GraphSpec, TextGraph
    from ov2vss_export.onnx_export import export_graph

    encoder = build_text_encoder(ModelConfig(text_encoder="minilm", embed_dim=384))
    texts = ["", "sky", "a photo of a traffic sign.", "Ünïcode 🚦 CAPITALS!?", "word " * 40, "word " * 600]
    prompts = encoder.tokenizer.encode_batch(texts[1:3])
    inputs = {
        "tokens": torch.tensor([p.ids for p in prompts]),
        "attention_mask": torch.tensor([p.attention_mask for p in prompts]),
    }
    proto = export_graph(
        GraphSpec("text", TextGraph(encoder), inputs, ["embeddings"], {k: {0: "B", 1: "L"} for k in inputs})
    )
    small = quantize_weights(proto)
    assert small.ByteSize() < 0.3 * proto.ByteSize()
    full_session = onnxruntime.InferenceSession(proto.SerializeToString())
    small_session = onnxruntime.InferenceSession(small.SerializeToString())
    for group in ([t] for t in texts):
        encoded = encoder.tokenizer.encode_batch(group)
        feed = {
            "tokens": np.array([e.ids for e in encoded], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
        }
        expected = encoder.encode(group).numpy()
        assert np.abs(full_session.run(None, feed)[0] - expected).max() < 1e-4
        assert (small_session.run(None, feed)[0] * expected).sum(1).min() >= 0.999
