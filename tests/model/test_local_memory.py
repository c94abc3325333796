"""The local memory: it changes nothing at first, remembers places, forgets after its links, streams exactly, and is
exported."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ov2vss import checkpoint
from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS
from ov2vss.model.config import ModelConfig
from ov2vss.model.local_memory import LINKS, ConvGRU, LocalMemory
from ov2vss.presets import configure
from ov2vss.text import build_text_encoder
from ov2vss.torch_engine import PerFrameEngine, TorchEngine
from ov2vss.train.loop import Trainer
from ov2vss_export.export_request import ExportRequest
from ov2vss_export.torch_gates import clip_rollout
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.rollout import rolled_logits
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.stream.stream import Stream
from tests.conftest import moving_frames, random_model

SIZE = (64, 96)


def unit_rows(count: int, width: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def remembering() -> OV2VSS:
    return random_model(configure("tiny", ["model.local_memory=true"]).model)


def test_the_cell_is_a_gated_recurrent_unit() -> None:
    """Against torch's GRU cell, place by place: with 1 x 1 kernels every place is a cell of its own."""
    torch.manual_seed(0)
    cell, reference = ConvGRU(3), torch.nn.GRUCell(3, 3)
    kernels = torch.zeros(9, 3, 3, 3), torch.zeros(9, 3, 3, 3)
    order = [1, 0, 2]  # torch has the reset gate first, and its update gate keeps the past
    for kernel, weight in zip(kernels, (reference.weight_ih, reference.weight_hh), strict=True):
        parts = weight.detach().chunk(3)
        kernel[:, :, 1, 1] = torch.cat([parts[k] * (-1 if k == 1 else 1) for k in order])
    with torch.no_grad():
        reference.bias_hh.zero_()
        parts = reference.bias_ih.detach().chunk(3)
        cell.outside.weight.copy_(kernels[0])
        cell.inside.weight.copy_(kernels[1])
        cell.outside.bias.copy_(torch.cat([parts[k] * (-1 if k == 1 else 1) for k in order]))
    x, past = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    flat = [v.permute(0, 2, 3, 1).reshape(-1, 3) for v in (x, past)]
    want = reference(*flat).reshape(2, 4, 5, 3).permute(0, 3, 1, 2)
    assert torch.allclose(cell(cell.outside(x), past), want, atol=1e-6)
    assert torch.allclose(cell(cell.outside(x), None), cell(cell.outside(x), torch.zeros_like(past)), atol=1e-6)


def test_a_new_memory_changes_nothing(config: ModelConfig, model: OV2VSS) -> None:
    torch.manual_seed(3)
    larger = OV2VSS(config.model_copy(update={"local_memory": True})).eval()
    weights = {k: v for k, v in larger.trained_state().items() if k.startswith("memory.")}
    assert not weights["memory.gate"].any()
    larger.load_trained_state(model.trained_state() | weights)
    frames = torch.from_numpy(np.stack(moving_frames(5, SIZE))).permute(0, 3, 1, 2)
    text = torch.from_numpy(unit_rows(3, config.embed_dim))
    with torch.no_grad():
        a, b = (m(frames[None, :4], frames[4:], text).logits for m in (model, larger))
    assert torch.equal(a, b)


def test_it_remembers_places_of_the_last_references_and_no_others() -> None:
    torch.manual_seed(0)
    memory = LocalMemory(8)
    torch.nn.init.normal_(memory.gate)
    grids = [(8, 12), (4, 6), (2, 3)]
    frames = [[torch.randn(1, 8, *grid) for grid in grids] for _ in range(4)]

    def read(changed: int | None = None) -> torch.Tensor:
        seen = [[q.clone() for q in frame] for frame in frames]
        if changed is not None:
            for query in seen[changed]:
                query[..., :1, :1] += 1
        *references, target = [memory.look(queries) for queries in seen]
        return memory.read(target, memory.chain(references))

    with torch.no_grad():
        plain = read()
        assert torch.equal(read(0), plain)  # three references, of which the last LINKS count
        assert LINKS == 2
        for index in (1, 2):
            difference = (read(index) - plain).abs().amax(1)[0]
            assert difference[:2, :2].max() > 1e-4
            assert difference[:, 11].max() == 0  # what happened in the corner stays near it


def test_a_stream_equals_clips_at_every_frame(remembering: OV2VSS) -> None:
    config = remembering.config
    double = OV2VSS(config).double().eval()
    double.load_state_dict({k: v.double() for k, v in remembering.state_dict().items()})
    frames = moving_frames(48, SIZE)
    words = unit_rows(3, config.embed_dim).astype(np.float64)
    for gap in (1, 3):
        engine = TorchEngine(double, SIZE, build_text_encoder(config))
        stream = Stream(engine, "a; b; c", config.prompts, gap, "farthest", embeddings=words)  # type: ignore[arg-type]
        found = list(rolled_logits(stream, frames, progress=False))
        want = clip_rollout(double, gap, words, frames)  # type: ignore[arg-type]
        assert max(float(np.abs(a - b).max()) for a, b in zip(found, want, strict=True)) < 1e-10
    engine = PerFrameEngine(double, SIZE, build_text_encoder(config))
    own = Stream(engine, "a; b; c", config.prompts, 3, "first", embeddings=words)  # type: ignore[arg-type]
    alone = double.forward_single(torch.from_numpy(frames[7]).permute(2, 0, 1)[None], torch.from_numpy(words)).logits
    assert float(np.abs(own.logits(frames[7]) - alone[0].detach().numpy()).max()) < 1e-10


def test_it_needs_what_it_hangs_on() -> None:
    with pytest.raises(OV2VSSError, match="local_memory=true needs stcf=true"):
        configure("tiny", ["model.local_memory=true", "model.stcf=false"])


@pytest.mark.whole
def test_trained_on_and_exported(tmp_path: Path) -> None:
    """A run without a memory is gone on with by one that has it, and the export passes its gates in fp32 and fp16."""
    from ov2vss.train.start import start_from
    from ov2vss_export.bundle_writer import export_bundle

    small = ["batch=2", "size=64x96", "crop=64x96", "workers=0", "per_frame_iterations=0"]
    Trainer(configure("tiny", ["iterations=1", *small]), tmp_path / "before").fit()
    base = start_from(str(tmp_path / "before"), None)
    again = configure(base, [*small, "iterations=2", "model.local_memory=true"], data="shapes")
    trainer = Trainer(again, tmp_path / "run")
    gate = trainer.raw_model.memory.gate  # type: ignore[union-attr]
    assert not gate.any()
    trainer.fit()
    assert gate.any()
    with torch.no_grad():
        gate += 1.0  # as if it had been trained for long
    checkpoint.save(tmp_path / "run", 3, trainer.raw_model.trained_state(), {}, {})
    found = checkpoint.find(tmp_path / "run", "last")
    request = ExportRequest(
        found, Vocabulary.parse("red circle; blue square; background"), tmp_path / "bundle", SIZE,
        ("fp32", "fp16"), rollout=45,
    )  # fmt: skip
    gates = export_bundle(request)
    assert all(gate.passed for found in gates.values() for gate in found)
    state = Bundle.open(tmp_path / "bundle").manifest.state
    assert state is not None
    chain = 3 * 4 * sum(h * w for h, w in ((2, 3), (1, 2), (1, 1), (1, 1))) * 32
    assert state.shape == [chain + LINKS * 16 * (8 * 12 + 4 * 6)]
