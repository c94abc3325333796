"""A model that does not look back: exported by the same program, with a step that has no state."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ov2vss import checkpoint
from ov2vss.presets import configure
from ov2vss.text import build_text_encoder
from ov2vss.train.loop import Trainer
from ov2vss_export.bundle_writer import export_bundle
from ov2vss_export.export_request import ExportRequest
from ov2vss_export.graphs import FlatStepGraph, build_graphs
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames, random_model

SIZE = (64, 96)


def test_the_step_is_the_models_own_with_its_fusion_taken_apart() -> None:
    model = random_model(configure("tiny", ["model.stcf=false"]).model)
    specs = {s.name: s for s in build_graphs(model, build_text_encoder(model.config), SIZE)}
    frame = torch.from_numpy(moving_frames(1, SIZE)[0])[None]
    found = dict(zip(specs["backbone"].outputs, specs["backbone"].module(frame), strict=True))
    step = specs["stcf_step"]
    assert isinstance(step.module, FlatStepGraph)
    assert list(step.inputs) == ["feat_s8", "feat_s16", "feat_s32", "context", "position"]
    got = step.module(*(found[name] for name in step.inputs))
    target = model.encode(frame.permute(0, 3, 1, 2))
    want, state = model.step(target, model.context(target.tokens, target.lattice), None)
    assert state is None
    assert float((got - want[0]).abs().max() / want.abs().max()) < 1e-5


@pytest.mark.whole
def test_it_is_exported_with_all_gates_and_runs_frame_by_frame(tmp_path: Path) -> None:
    small = ["batch=2", "size=64x96", "crop=64x96", "workers=0", "iterations=2", "per_frame_iterations=0"]
    Trainer(configure("tiny", [*small, "model.stcf=false"]), tmp_path / "run").fit()
    words = Vocabulary.parse("red circle; blue square; background")
    found = checkpoint.find(tmp_path / "run")
    gates = export_bundle(ExportRequest(found, words, tmp_path / "bundle", SIZE, rollout=45))
    assert all(gate.passed for every in gates.values() for gate in every)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.state is None
    assert (manifest.references, manifest.gap) == (1, 1)
    segmenter = Segmenter.load(tmp_path / "bundle")
    frames = moving_frames(4, SIZE)
    one, other = segmenter.stream(None, words), segmenter.stream(None, words)
    for stream in (one, other):
        stream.set_first(frames[0])
    for frame in frames[:3]:
        one.step(frame)
    np.testing.assert_array_equal(one.step(frames[2]).labels, other.step(frames[2]).labels)


@pytest.mark.parametrize("part", ["rfe", "vte"])
def test_other_parts_cannot_be_left_out(part: str) -> None:
    assert configure("tiny", [f"model.{part}=false"]).model.ablations() == [part]
