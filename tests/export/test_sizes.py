"""Frame sizes and class counts of bundles: portrait, snapped, up to 1,200 words; prompts of every length."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ov2vss.clip import build_clip
from ov2vss.model import ModelConfig
from ov2vss.text import build_text_encoder
from ov2vss.text.clip_text import ClipText
from ov2vss_export.graphs import GraphSpec, TextGraph
from ov2vss_export.onnx_export import export_graph
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import TrainedRun, moving_frames, run_program, shuffled


@pytest.mark.parametrize(
    ("asked", "made"), [("126x70", (128, 64)), pytest.param("64x224", (64, 224), marks=pytest.mark.slow)]
)
def test_any_size_is_exported_and_verified(trained: TrainedRun, tmp_path: Path, asked: str, made) -> None:
    out = tmp_path / "b"
    args = ("--ckpt", trained.folder, "--size", asked, "--out", out, "--rollout", "48", "--whole-decoder")
    done = run_program("ov2vss-export", *args, "--json")
    assert done.returncode == 0, done.stderr
    told = f"size {asked} -> {made[0]}x{made[1]} (multiples of 32)" in done.stderr
    assert told == (asked != f"{made[0]}x{made[1]}")
    assert json.loads(done.stdout.splitlines()[-1])["gates"]["fp32"][0]["passed"]
    segmenter = Segmenter.load(out)
    assert segmenter.engine.size == made
    assert "48 frames" in (out / "README.md").read_text()
    result = segmenter.stream().step(moving_frames(1, (200, 150))[0])
    assert result.labels.shape == (200, 150)


@pytest.mark.parametrize("count", [1, 2, 33, 1200])
def test_numbers_of_classes(bundle: Path, count: int) -> None:
    segmenter = Segmenter.load(bundle)
    result = segmenter.stream(None, [f"thing {k}" for k in range(count)]).step(moving_frames(1, (112, 168))[0])
    assert result.logits.shape[0] == count
    assert result.labels.dtype == (np.uint8 if count <= 254 else np.uint16)
    assert result.labels.max() < count


def test_graphs_are_clean(bundle: Path) -> None:
    """Every node is used, every tensor has one producer, no file lies outside, symbols of axes are the contract's."""
    opened = Bundle.open(bundle)
    for variant in opened.manifest.variants.values():
        for info in variant.graphs.values():
            proto = onnx.load(bundle / info.file, load_external_data=False)
            onnx.checker.check_model(proto, full_check=True)
            used = {name for node in proto.graph.node for name in node.input} | {o.name for o in proto.graph.output}
            dead = [n.name for n in proto.graph.node if not used & set(n.output)]
            assert not dead, (info.file, dead)
            made = [name for node in proto.graph.node for name in node.output if name]
            assert len(made) == len(set(made))
            stored = proto.graph.initializer
            assert not [t.name for t in stored if t.name not in used], info.file
            assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in stored)
            symbols = {
                d.dim_param
                for value in (*proto.graph.input, *proto.graph.output)
                for d in value.type.tensor_type.shape.dim
                if d.dim_param
            }
            assert symbols <= {"B", "L", "N"}


def every_length(encoder, limit: int, step: int = 1) -> float:
    """Largest difference of the exported text graph's embeddings from torch's over prompts of every length, of the
    first sixteen and every ``step``-th with another step than 1, the limit and what is cut to it among them."""
    import onnxruntime

    prompts = encoder.tokenizer.encode_batch(["a photo of a red circle", "background"])
    inputs = {
        "tokens": torch.tensor([p.ids for p in prompts]),
        "attention_mask": torch.tensor([p.attention_mask for p in prompts]),
    }
    axes = {name: {0: "B", 1: "L"} for name in inputs}
    proto = export_graph(GraphSpec("text", TextGraph(encoder).eval(), inputs, ["embeddings"], axes))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    worst, lengths = 0.0, set()
    counts = [n for n in range(limit + 2) if n < 16 or n >= limit - 4 or n % step == 0]
    for count in counts:
        text = " ".join(["car", "tree", "sky"][k % 3] for k in range(count))
        encoded = encoder.tokenizer.encode(text)
        lengths.add(len(encoded.ids))
        feed = {"tokens": np.array([encoded.ids]), "attention_mask": np.array([encoded.attention_mask])}
        names = {i.name for i in session.get_inputs()}
        found = session.run(None, {k: v for k, v in feed.items() if k in names})[0]
        worst = max(worst, float(np.abs(found - encoder.encode([text]).numpy()).max()))
    assert max(lengths) == limit
    assert len(lengths) == len([n for n in counts if n <= limit - 2])  # start and end are always there
    return worst


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_minilm_at_every_prompt_length(step: int) -> None:
    encoder = build_text_encoder(ModelConfig(text_encoder="minilm", embed_dim=384))
    assert every_length(encoder, 256, step) < 1e-4


def test_clip_at_every_prompt_length(small_clip: str) -> None:
    assert every_length(ClipText(shuffled(build_clip(small_clip, ""))).eval(), 77) < 1e-4
