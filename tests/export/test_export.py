"""Bundles: what the gates accept, what they refuse, and what the runtime refuses to load."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from ov2vss import checkpoint
from ov2vss.model import ModelConfig
from ov2vss.text import build_text_encoder
from ov2vss_export import torch_gates
from ov2vss_export.bundle_writer import export_bundle
from ov2vss_export.cli import main as export_program
from ov2vss_export.export_request import ExportRequest, GateError
from ov2vss_export.graphs import GraphSpec, build_graphs
from ov2vss_export.text_weights import quantize_weights
from ov2vss_runtime.bundle import gates, rollout, verify
from ov2vss_runtime.bundle.bundle import DECODER_PARTS, GRAPHS, Bundle, file_sha256
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.engines.onnxruntime import OrtEngine
from ov2vss_runtime.errors import BundleError, OV2VSSError
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import TrainedRun, moving_frames, run_program

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
    graphs = manifest.variants["fp32"].graphs
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


def test_every_gate_of_every_variant_is_recorded_as_the_card_says(bundle: Path) -> None:
    """What the gates refuse is in test_gates.py; here, that none is left out."""
    variants = json.loads((bundle / "manifest.json").read_text())["variants"]
    assert {k: (v["precision"], v["engines"]) for k, v in variants.items()} == {
        "fp32": ("fp32", ["onnxruntime", "openvino", "tensorrt"]),
        "fp16": ("fp16", ["onnxruntime", "tensorrt"]),
        "int8": ("int8", ["onnxruntime", "openvino"]),
        "int8-tensorrt": ("int8", ["tensorrt"]),
    }
    card = (bundle / "README.md").read_text()
    assert "Knows shapes only." in card
    rollout = ["label agreement", "agreement off near-ties", "logits"]
    for variant, info in variants.items():
        graphs = [g for g in ("text", "backbone", "stcf_step", "decoder", *DECODER_PARTS) if g in info["graphs"]]
        names = {f"{graph} against torch" for graph in graphs} | {f"roll-out {what}" for what in rollout}
        names |= {"mIoU difference in points", "roll-out on other frames", "reset and interleaved streams"}
        assert {gate["gate"] for gate in info["verified"]["gates"]} == names
        section = card.split(f"### {variant}\n")[1].split("###")[0]
        for gate in info["verified"]["gates"]:
            assert f"| {gate['gate']} | {gate['value']:.6g} |" in section


def test_precisions_differ_where_they_should(bundle: Path) -> None:
    """fp16 is half the size with float32 sums; int8 stores the weights of the image towers; the rest is shared."""
    manifest = Bundle.open(bundle).manifest
    files = {v: {g: i.file for g, i in info.graphs.items()} for v, info in manifest.variants.items()}
    for graph in GRAPHS:
        full, half = (onnx.load(bundle / files[v][graph]) for v in ("fp32", "fp16"))
        types = {n.name: n.op_type for n in half.graph.node}
        assert [(i.name, i.type) for i in half.graph.input] == [(i.name, i.type) for i in full.graph.input]
        assert [o.type.tensor_type.elem_type for o in half.graph.output] == [
            o.type.tensor_type.elem_type for o in full.graph.output
        ]
        typed = onnx.shape_inference.infer_shapes(half)
        kinds = {v.name: v.type.tensor_type.elem_type for v in (*typed.graph.value_info, *typed.graph.output)}
        for node in half.graph.node:
            if node.op_type in ("LayerNormalization", "Softmax", "ReduceL2", "ReduceMean", "InstanceNormalization"):
                assert kinds[node.output[0]] == onnx.TensorProto.FLOAT, (graph, node.name)
        if graph == "backbone":
            convolutions = [n for n in half.graph.node if n.op_type == "Conv"]
            assert all(kinds[n.output[0]] == onnx.TensorProto.FLOAT16 for n in convolutions)
            assert half.ByteSize() < 0.6 * full.ByteSize()
        if graph == "decoder":
            # The cosine: the one product of two activations outside of an attention.
            sums = [
                n for n in half.graph.node if n.op_type == "MatMul" and kinds[n.output[0]] == onnx.TensorProto.FLOAT
            ]
            assert len(sums) >= 1, types
    assert {g for g in GRAPHS if files["int8"][g] == files["fp32"][g]} == {"text", "stcf_step", "decoder"}
    for variant, kind in (
        ("int8", onnx.TensorProto.UINT8),
        ("int8-tensorrt", onnx.TensorProto.INT8),
    ):
        proto = onnx.load(bundle / files[variant]["backbone"])
        points = {t.name: t for t in proto.graph.initializer}
        quantize = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
        assert len(quantize) >= 10
        assert {points[n.input[2]].data_type for n in quantize} == {kind}
        if variant == "int8-tensorrt":
            assert all(not onnx.numpy_helper.to_array(points[n.input[2]]).any() for n in quantize), "not symmetric"


def _with_noise(bundle: Path, copy: Path, file: str) -> Path:
    """Five per cent noise on one float32 weight of a graph, and the hashes rewritten to match."""
    shutil.copytree(bundle, copy)
    proto = onnx.load(copy / file)
    users = (n for n in proto.graph.node if n.op_type in ("Conv", "Gather") and "weight" in "".join(n.input))
    name = next(i for i in next(users).input if "weight" in i)
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor)
    noisy = values * (1 + 0.05 * np.random.default_rng(0).standard_normal(values.shape))
    tensor.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
    (copy / file).write_bytes(proto.SerializeToString())

    def rewrite(data: dict) -> None:
        for variant in data["variants"].values():
            for info in variant["graphs"].values():
                if info["file"] == file:
                    info["sha256"] = file_sha256(copy / file)

    _edit(copy, rewrite)
    return copy


def test_verify_only_passes_on_the_bundle_itself(bundle: Path) -> None:
    done = run_program("ov2vss-export", "--verify-only", bundle, "--json")
    assert done.returncode == 0, done.stderr
    gates = json.loads(done.stdout.splitlines()[-1])["gates"]
    assert set(gates) == {"fp32", "fp16", "int8"}
    assert all(g["passed"] for found in gates.values() for g in found)


@pytest.mark.parametrize("graph", GRAPHS)
def test_verify_only_names_a_graph_with_noise(bundle: Path, tmp_path: Path, graph: str) -> None:
    copy = Bundle.open(_with_noise(bundle, tmp_path / "b", f"{graph}.onnx"))
    gates = verify.verify_bundle(OrtEngine(copy, "fp32"))
    alone = [g.name.split()[0] for g in gates if not g.passed and "roll-out" not in g.name]
    assert alone == [graph]


def test_verify_only_ends_with_an_error(bundle: Path, tmp_path: Path) -> None:
    copy = _with_noise(bundle, tmp_path / "b", "decoder.onnx")
    done = run_program("ov2vss-export", "--verify-only", copy)
    assert done.returncode == 1
    assert "decoder as exported (fp32)" in done.stderr.splitlines()[-1]
    (copy / "parity.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    _edit(copy, lambda d: d["parity"].update(sha256=file_sha256(copy / "parity.safetensors")))
    done = run_program("ov2vss-export", "--verify-only", copy)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "parity.safetensors cannot be read" in done.stderr


def test_a_second_vocabulary(bundle: Path, tmp_path: Path) -> None:
    """Its embeddings join the cache, for every distinct text graph; the first one stays; the name works at run time."""
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    words = tmp_path / "animals.txt"
    words.write_text("zebra\nhorse, pony  # two words\n")
    args = ("--add-vocab", words, "--bundle", copy, "--json")
    done = run_program("ov2vss-export", *args)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["computed"] == 4  # fp32 and fp16 have text graphs of their own
    assert len(list(copy.glob("vocabulary*"))) == 1
    again = run_program("ov2vss-export", *args)
    assert json.loads(again.stdout.splitlines()[-1])["computed"] == 0
    segmenter = Segmenter.load(copy)
    animals = segmenter.words("animals")
    assert animals.entries == (("zebra",), ("horse", "pony"))
    cached = segmenter.embeddings(animals)
    fresh = segmenter.engine.encode_text(["zebra", "horse", "pony"])
    mean = fresh[1:].mean(0)
    assert np.allclose(cached, [fresh[0], mean / np.linalg.norm(mean)], atol=1e-6)
    assert segmenter.embeddings(segmenter.words(None)) is not None
    words.write_text("zebra\ncow\n")
    done = run_program("ov2vss-export", *args)
    assert done.returncode == 1
    assert "already has a vocabulary 'animals' with other words" in done.stderr
    assert segmenter.words("animals; plants").names == ["animals", "plants"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "exactly one of --ckpt, --clip, --verify-only, --add-vocab"),
        (("--verify-only", "b", "--size", "64x64"), "--size needs --ckpt"),
        (("--add-vocab", "a.txt"), "--add-vocab needs --bundle"),
        (("--ckpt", "r", "--backend", "openvino"), "--backend needs --verify-only"),
        (("--bundle", "b", "--engine", "tensorrt", "--backend", "openvino"), "--backend needs --verify-only"),
        (("--bundle", "b", "--engine", "tensorrt-rtx"), "--compute need each other"),
        (("--ckpt", "r", "--precision", "fp32,int4"), "int4 is not among fp32, fp16, int8"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], message: str) -> None:
    done = run_program("ov2vss-export", *args)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("name", ["backbone", "stcf_step", "text_refinement", "class_head"])
def test_gate_1_names_a_graph_that_differs(trained: TrainedRun, bundle: Path, name: str) -> None:
    """Five per cent noise on one weight of the torch side: only the lines of the graphs with that weight fail."""
    found = checkpoint.find(trained.folder)
    model = found.build()
    parameter = {
        "backbone": model.image_encoder.project.weight,
        "stcf_step": model.stcf.merge_values.weight,
        "text_refinement": model.text_refinement.ffn[1].weight,
        "class_head": model.decoder.logit.weight,
    }[name]
    with torch.no_grad():
        torch.manual_seed(0)
        parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    encoder = build_text_encoder(model.config)
    engine = OrtEngine(Bundle.open(bundle))
    frame = torch_gates.generated_frames(engine.size, 1)[0]
    reference = torch_gates.graph_reference(build_graphs(model, encoder, engine.size), frame)
    gates = torch_gates.gate_graphs(engine, reference, engine.bundle.manifest.variants["fp32"].graphs)
    whole = ["decoder"] if name in DECODER_PARTS else []
    assert [g.name.split()[0] for g in gates if not g.passed] == [*whole, name]


@pytest.fixture
def graphs_at_hand(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of the trained model at its own size take the graphs of its bundle: tracing takes most of an export."""
    graphs = Bundle.open(bundle).manifest.variants["fp32"].graphs

    def at_hand(spec: GraphSpec, lean: bool = True) -> onnx.ModelProto:
        return onnx.load(bundle / graphs[spec.name].file)

    for module in [m for name, m in sys.modules.items() if name.startswith("ov2vss_export.")]:
        if hasattr(module, "export_graph"):
            monkeypatch.setattr(module, "export_graph", at_hand)


@pytest.mark.usefixtures("graphs_at_hand")
def test_the_decoder_whole_and_in_parts(trained: TrainedRun, bundle: Path, tmp_path: Path) -> None:
    """``--whole-decoder`` leaves the parts out, and the engine gives the same logits by either way."""
    out = tmp_path / "whole"
    args = ("--ckpt", trained.folder, "--out", out, "--whole-decoder", "--rollout", "45")
    done = CliRunner().invoke(export_program, [str(a) for a in args])
    assert done.exit_code == 0, done.output
    graphs = [set(Bundle.open(folder).manifest.variants["fp32"].graphs) for folder in (out, bundle)]
    assert graphs == [set(GRAPHS), {*GRAPHS, *DECODER_PARTS}]
    names = [f"thing {k}" for k in range(40)]  # several chunks
    whole, parts = (Segmenter.load(folder).stream(None, names) for folder in (out, bundle))
    for frame in moving_frames(3, (128, 192)):
        want, got = whole.logits(frame), parts.logits(frame)
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def test_gate_2_sees_a_wrong_ring(trained: TrainedRun, bundle: Path) -> None:
    """A stream with another gap than the clips must not pass the roll-out."""
    found = checkpoint.find(trained.folder)
    opened = Bundle.open(bundle)
    engine = OrtEngine(opened)
    embeddings = opened.cached_embeddings(opened.default_vocabulary, "fp32")
    frames = torch_gates.generated_frames(engine.size, 24)
    trained_logits = torch_gates.clip_rollout(found.build(), 3, embeddings, frames)

    def error(stream_gap: int) -> float:
        other = opened.manifest.model_copy(update={"gap": stream_gap})
        return torch_gates.rollout(rollout.stream_maker(engine, other, embeddings), trained_logits, frames).error

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


@pytest.mark.usefixtures("graphs_at_hand")
def test_failing_gates_are_all_named_and_the_bundle_is_kept(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour of work is not thrown away, and does not get the name that was asked for either."""
    strict = dataclasses.replace(gates.BOUNDS["fp32"], graph=1e-12)
    monkeypatch.setitem(gates.BOUNDS, "fp32", strict)
    request = ExportRequest(
        checkpoint.find(trained.folder), Vocabulary.parse("red circle; background"), tmp_path / "b", (128, 192)
    )
    with pytest.raises(GateError, match="parity gate failed: backbone against torch") as caught:
        export_bundle(request)
    failed = [gate.name for gate in caught.value.gates["fp32"] if not gate.passed]
    assert {"backbone against torch", "stcf_step against torch", "decoder against torch"} <= set(failed)
    assert all(name in str(caught.value) for name in failed)
    assert any(gate.passed for gate in caught.value.gates["fp32"])
    assert [path.name for path in tmp_path.iterdir()] == ["b.failed"]
    assert not Bundle.open(tmp_path / "b.failed").manifest.variants["fp32"].verified["passed"]


@pytest.mark.parametrize(
    "file",
    [
        "backbone.onnx",
        "stcf_step.onnx",
        "decoder.onnx",
        "text.onnx",
        "tokenizer.json",
        "vocabulary.safetensors",
        "parity.safetensors",
    ],
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
        (lambda d: d["variants"]["fp32"]["graphs"].pop("decoder"), "no graph decoder"),
        (lambda d: d["variants"]["fp32"]["graphs"]["text"].update(file="../text.onnx"), "not a plain file name"),
        (lambda d: d["variants"]["fp32"]["graphs"]["text"].update(file="/etc/passwd"), "not a plain file name"),
        (lambda d: d["variants"]["fp32"]["graphs"]["text"].update(file="other.onnx"), "other.onnx is missing"),
        (lambda d: d["variants"]["fp32"]["graphs"]["text"].update(sha256="0" * 64), "sha256 differs"),
        (lambda d: d["variants"].clear(), "variants"),
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
    with pytest.raises(
        BundleError, match=r"no precision 'fp16' for openvino.*fp32 \(onnxruntime, openvino, tensorrt\)"
    ):
        Bundle.open(bundle).variant("fp16", "openvino")


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
