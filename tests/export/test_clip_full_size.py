"""ViT-B-16 at 288 x 512 with random weights: every recipe as a graph on every engine. Minutes each, so marked slow."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ov2vss.clip import ClipSource, clip_settings, load_clip
from ov2vss.model.dense import RECIPES, build_dense
from ov2vss.model.training_free import TrainingFree
from ov2vss_export.clip_graphs import ClipBackbone
from ov2vss_export.fp16 import to_fp16
from ov2vss_export.graphs import GraphSpec
from ov2vss_export.onnx_export import export_graph
from ov2vss_runtime.bundle.rollout import synthetic_frames

pytestmark = pytest.mark.slow
MODEL, SIZE = "ViT-B-16", (288, 512)
FRAMES = synthetic_frames(SIZE, 3)[::2]


@lru_cache(maxsize=1)
def made(recipe: str) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """The backbone graph, and torch's dense features of :data:`FRAMES` ``[D, h, w]``."""
    settings = clip_settings(MODEL, "openai")
    network = load_clip(MODEL, "openai", ClipSource("random"))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.visual.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    model = TrainingFree(build_dense(network.visual, recipe, 18 * 32, settings.mean, settings.std), SIZE).eval()
    frames = [torch.from_numpy(frame)[None] for frame in FRAMES]
    with torch.no_grad():
        wanted = [model.encode(frame)[0].numpy() for frame in frames]
    spec = GraphSpec("backbone", ClipBackbone(model).eval(), {"frame": frames[0]}, ["dense", "tokens"], {})
    return export_graph(spec), wanted


def onnxruntime_features(proto: onnx.ModelProto) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(["dense"], {"frame": frame[None]})[0] for frame in FRAMES]


def error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, wanted, strict=True))


def turned(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Largest 1 - cosine of any place."""

    def one(a: np.ndarray, b: np.ndarray) -> float:
        lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
        return float((1 - (a * b).sum(0) / lengths).max())

    return max(one(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_graphs_equal_torch_on_every_engine(recipe: str, tmp_path: Path) -> None:
    proto, wanted = made(recipe)
    assert not {n.op_type for n in proto.graph.node} & {"NonZero", "Loop", "If", "Scan", "Resize"}
    assert error(onnxruntime_features(proto), wanted) <= 5e-6
    assert turned(onnxruntime_features(to_fp16(proto)), wanted) <= 1e-3
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "backbone.onnx"
    path.write_bytes(proto.SerializeToString())
    for precision, bound, measure in (("f32", 5e-6, error), ("bf16", 1e-3, turned)):
        if precision == "bf16" and "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
            continue  # it would be computed in float32
        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": precision})
        assert measure([compiled({"frame": frame[None]})["dense"] for frame in FRAMES], wanted) <= bound


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_build_with_tensorrt_rtx(recipe: str, precision: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")
    proto = made(recipe)[0]
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    content = (proto if precision == "fp32" else to_fp16(proto)).SerializeToString()
    assert parser.parse(content), str(parser.get_error(0))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(network, config) is not None
