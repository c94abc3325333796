"""Where an export's time goes, and work that is done once for all variants."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ov2vss_export import torch_gates
from ov2vss_export.int8 import Quantizer
from ov2vss_export.stages import Stages
from ov2vss_runtime import progress
from ov2vss_runtime.bundle.rollout import DISTANT_AT, EVERY, RESET_AT, rolled_logits, sampled_rollout


def test_processor_time_is_told_by_stage() -> None:
    stages = Stages(planned=2)
    for name, seconds in (("graphs", 0.05), ("int8", 0.2), ("graphs", 0.05)):
        with stages(name):
            began = time.process_time()
            while time.process_time() - began < seconds:
                pass
    record = stages.record()
    assert record["graphs"] == pytest.approx(0.1, abs=0.05)
    assert record["int8"] == pytest.approx(0.2, abs=0.05)
    assert stages.summary().startswith("0 processor seconds: int8 0, graphs 0")


def test_a_silent_stage_says_that_it_lives(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)
    with caplog.at_level(logging.INFO), Stages(planned=5)("int8 for tensorrt"):
        time.sleep(0.2)
    lines = [r.getMessage() for r in caplog.records]
    assert lines
    assert lines[0] == "export: int8 for tensorrt (stage 1 of 5), 0 s so far, 0 s in all"


class Recorder:
    """A stream whose logits are a running number; it notes what is asked of it."""

    def __init__(self) -> None:
        self.frames, self.calls = 0, list[tuple[str, int]]()

    def reset(self) -> None:
        self.calls.append(("reset", self.frames))

    def set_last(self, frame: np.ndarray) -> None:
        self.calls.append(("last", self.frames))

    def advance(self, frame: np.ndarray) -> None:
        self.frames += 1

    def logits(self, frame: np.ndarray) -> np.ndarray:
        self.frames += 1
        return np.arange(600, dtype=np.float32).reshape(2, 15, 20) + 1000 * (self.frames - 1)


def test_frames_that_nobody_looks_at_are_not_decoded_and_change_nothing() -> None:
    frames: Sequence[np.ndarray] = [np.zeros((4, 4, 3), np.uint8)] * 64
    whole, fewer = Recorder(), Recorder()
    every = [x for i, x in enumerate(rolled_logits(whole, frames, progress=False)) if i % EVERY == 0]
    some = list(rolled_logits(fewer, frames, progress=False, every=EVERY))
    assert whole.calls == fewer.calls == [("last", 0), ("last", DISTANT_AT), ("reset", RESET_AT), ("last", RESET_AT)]
    assert all(np.array_equal(a, b) for a, b in zip(every, some, strict=True))
    # The same cells of the same frames as before, when all 64 were decoded.
    stored = sampled_rollout(Recorder, frames)
    for number, row in enumerate(stored):
        places = np.random.RandomState(EVERY * number).choice(300, 128, False)
        assert np.array_equal(row, every[number].reshape(2, -1)[:, places])


def test_the_truth_of_a_frame_is_that_of_torch() -> None:
    logits = np.random.RandomState(0).standard_normal((5, 6, 8)).astype(np.float32)
    truth = torch_gates.Truth.of(logits, (48, 64))
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (48, 64), mode="bilinear")[0].numpy()
    assert np.array_equal(truth.labels, full.argmax(0))
    best = np.sort(full, 0)
    assert truth.clear is not None
    assert np.array_equal(truth.clear, best[-1] - best[-2] > 1e-3 * (full.max() - full.min()))
    assert torch_gates.Truth.of(logits[:1], (48, 64)).clear is None


def test_ranges_and_the_order_of_layers_are_found_once_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.RandomState(0)
    weights = [random.standard_normal((c_out, c_in, 3, 3)).astype(np.float32) for c_in, c_out in ((3, 4), (4, 4))]
    nodes = [
        helper.make_node("Transpose", ["frame"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["moved"], ["x0"], to=TensorProto.FLOAT),
    ]
    for i in range(2):
        node = helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"conv{i}", pads=[1] * 4)
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'model', 'model.backbone']")
        nodes.append(node)
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("x2", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    monkeypatch.setattr("ov2vss_export.int8.layers", lambda _model: ["conv0", "conv1"])
    frames = [random.randint(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
    alone = {engine: Quantizer(model, frames).quantize(engine) for engine in ("onnxruntime", "tensorrt")}
    shared, ranked = Quantizer(model, frames), []
    monkeypatch.setattr(shared, "sensitivity", lambda engine, _frames: ranked.append(engine) or {"conv1": 2.0})
    for engine in ("onnxruntime", "tensorrt"):
        # Measured in one run for both engines or in one for each: the files are the same.
        assert shared.quantize(engine).SerializeToString() == alone[engine].SerializeToString()
        shared.search(engine, lambda _proto: False, frames)
    assert ranked == ["onnxruntime"]
