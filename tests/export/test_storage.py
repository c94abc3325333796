"""Weights rounded to half precision once, constants stored so, and variants that are made when they are first used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from ov2vss import checkpoint
from ov2vss.presets import PRESETS
from ov2vss.text import build_text_encoder
from ov2vss_export.graphs import build_graphs
from ov2vss_export.onnx_export import export_graph
from ov2vss_export.rounding import fold_norms, round_checkpoint, round_weights
from ov2vss_export.storage import store_fp16
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.half_graphs import load_constants
from ov2vss_runtime.bundle.made import with_variant
from ov2vss_runtime.bundle.verify import verify_bundle
from ov2vss_runtime.engines.backends import load_engine
from ov2vss_runtime.errors import BundleError
from tests.conftest import TrainedRun, moving_frames, random_model

SIZE = (64, 96)


def harsh_norms(model: torch.nn.Module) -> torch.nn.Module:
    """Batch norms with statistics of every size."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.01, 4, generator=generator)
    return model


@torch.no_grad()
def test_folded_norms_compute_the_same_and_have_a_factor_of_one() -> None:
    model = harsh_norms(random_model(PRESETS["tiny"].model)).double()
    frames = torch.from_numpy(np.stack(moving_frames(2, SIZE))).permute(0, 3, 1, 2)
    before = model.encode(frames)
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # The model's float64 statistics are set so that their float32 values make one: equal to 1e-7.
    assert fold_norms(model) == len(norms) > 4
    after = model.encode(frames)
    for name in ("tokens", "dense", "position"):
        one, other = getattr(before, name), getattr(after, name)
        assert float((one - other).abs().max() / one.abs().max()) < 1e-5
    for norm in norms:
        assert torch.equal(norm.running_var.float() + norm.eps, torch.ones_like(norm.weight).float())
        assert torch.equal(norm.weight.float(), torch.ones_like(norm.weight).float())


@torch.no_grad()
def test_large_tensors_are_rounded_and_those_that_every_pixel_meets_are_not() -> None:
    model = harsh_norms(random_model(PRESETS["tiny"].model))
    fold_norms(model)
    folded = {k: v.clone() for k, v in model.named_parameters()}
    round_weights(model)
    kinds = set()
    for name, values in model.named_parameters():
        large = values.numel() >= 8192
        kinds.add(large)
        wanted = torch.from_numpy(folded[name].numpy().astype(np.float16).astype(np.float32))
        assert torch.equal(values, wanted if large else folded[name]), name
        assert not large or not torch.equal(values, folded[name]), name
    assert kinds == {True, False}
    stem = next(v for k, v in model.named_parameters() if k.startswith("backbone.net.") and v.ndim == 4)
    assert not torch.equal(stem, stem.half().float())


@torch.no_grad()
def test_stored_constants_are_half_the_size_and_the_same_bits() -> None:
    model = round_weights(harsh_norms(random_model(PRESETS["tiny"].model)))
    specs = build_graphs(model, build_text_encoder(model.config), SIZE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for spec in specs:
        if spec.name not in ("backbone", "decoder"):
            continue
        graph = export_graph(spec)
        stored = store_fp16(graph)
        sizes = [sum(len(t.raw_data) for t in g.graph.initializer) for g in (stored, graph)]
        assert sizes[0] < 0.65 * sizes[1]  # small tensors stay as they are
        halves = [t for t in stored.graph.initializer if t.data_type == TensorProto.FLOAT16]
        assert sum(n.op_type == "Cast" and n.input[0] in {t.name for t in halves} for n in stored.graph.node) == len(
            halves
        )
        back = {t.name: numpy_helper.to_array(t) for t in load_constants(stored).graph.initializer}
        for tensor in graph.graph.initializer:
            assert np.array_equal(back[tensor.name], numpy_helper.to_array(tensor)), tensor.name
        feed = {k: v.numpy() for k, v in spec.inputs.items()}
        one, other = (
            onnxruntime.InferenceSession(g.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
                None, feed
            )
            for g in (graph, stored)
        )
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_rounded_checkpoint_is_nearly_half_the_size_and_rounding_is_done_once(
    trained: TrainedRun, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    before, after = round_checkpoint(run)
    assert after < 0.65 * before
    model = checkpoint.find(run).build()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    round_weights(model)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    # Nearly what was trained: the share of the largest dense feature that rounding moved.
    frame = torch.from_numpy(moving_frames(1, SIZE)[0]).permute(2, 0, 1)[None]
    with torch.no_grad():
        one, other = (m.encode(frame).dense for m in (checkpoint.find(trained.folder).build(), model))
    assert 0 < float((one - other).abs().max()) < 0.02


@pytest.fixture
def lean_bundle(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle as ``--store fp16`` leaves it: without the variants that can be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(bundle, tmp_path / "lean"))
    manifest = json.loads((folder / "manifest.json").read_text()) | {"store": "fp16", "format_version": 3}
    for name in ("fp16", "int8-tensorrt"):
        manifest["variants"].pop(name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_half_precision_is_made_once_and_passes_the_gates(
    lean_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load_engine(Bundle.open(lean_bundle), "onnxruntime", "fp16")
    assert caplog.text.count("making its fp16 graphs, once") == 1
    gates = verify_bundle(engine)
    # The manifest was written anew by this test, which that gate has to notice.
    failed = [gate.row() for gate in gates if not gate.passed and gate.name != "manifest as exported"]
    assert not failed
    info = engine.bundle.manifest.variants["fp16"]
    assert (info.made_from, info.graphs["backbone"].weights) == ("fp32", "fp16")
    sizes = [(engine.bundle.folder / engine.bundle.manifest.variants[v].graphs["backbone"].file).stat().st_size
             for v in ("fp16", "fp32")]  # fmt: skip
    assert sizes[0] < 0.6 * sizes[1]
    again = load_engine(Bundle.open(lean_bundle), "onnxruntime", "fp16")
    assert again.bundle.folder == engine.bundle.folder
    assert caplog.text.count("making its fp16 graphs, once") == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_the_int8_of_tensorrt_is_symmetric_signed_and_nearly_the_same(lean_bundle: Path) -> None:
    import onnx

    made = with_variant(Bundle.open(lean_bundle), "int8", "tensorrt")
    model = onnx.load(made.graph_file(made.variant("int8", "tensorrt"), "backbone"))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    points = [constants[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(points) > 5
    assert {p.dtype for p in points} == {np.dtype(np.int8)}
    assert not any(p.any() for p in points)
    assert not any(c.dtype in (np.int32, np.uint8) for c in constants.values())
    frame = moving_frames(1, made.manifest.preprocess.size)[0]
    one, other = (
        onnxruntime.InferenceSession(str(made.graph_file(v, "backbone")), providers=["CPUExecutionProvider"]).run(
            ["dense"], {"frame": frame[None]}
        )[0]
        for v in ("fp32", made.variant("int8", "tensorrt"))
    )
    assert (one * other).sum(0).mean() > 0.97  # cosine of unit features


def test_without_onnx_it_says_what_to_install(lean_bundle: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from ov2vss_runtime.bundle.bundle import Bundle\n"
        "from ov2vss_runtime.bundle.made import with_variant\n"
        f"with_variant(Bundle.open({str(lean_bundle)!r}), 'fp16', 'onnxruntime')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "fp16 is made when it is first used, and onnx is not installed" in done.stderr.splitlines()[-1]
    assert "torch" not in done.stderr


def test_what_cannot_be_made_is_an_error_as_before(bundle: Path, lean_bundle: Path) -> None:
    opened = Bundle.open(lean_bundle)
    with pytest.raises(BundleError, match="no precision 'fp16' for openvino"):
        with_variant(opened, "fp16", "openvino")
    whole = opened.manifest.model_copy(update={"store": "fp32"})
    with pytest.raises(BundleError, match="no precision 'fp16' for onnxruntime"):
        with_variant(Bundle(opened.folder, whole), "fp16", "onnxruntime")
