"""Each gate lets the right thing through and refuses the nearest wrong one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ov2vss_export import torch_gates
from ov2vss_runtime.bundle.gates import BOUNDS, Gate, gate_other_frames, gate_reset

RANDOM = np.random.RandomState(0)


def logits(seed: int = 0) -> np.ndarray:
    """Sampled logits ``[T, N, P]`` without near-ties: 32,000 cells, the winners five above the rest."""
    random = np.random.RandomState(seed)
    found = random.uniform(-1, 1, (16, 4, 2000)).astype(np.float32)
    np.put_along_axis(found, random.randint(0, 4, (16, 1, 2000)), 6.0, 1)
    return found


@pytest.mark.parametrize(("precision", "wrong", "passes"), [("fp32", 3, True), ("fp32", 4, False), ("int8", 4, True)])
def test_labels_on_other_frames(precision: str, wrong: int, passes: bool) -> None:
    """Of 32,000 cells a ten-thousandth, 3.2, may differ at fp32."""
    trained = logits()
    found = trained.copy()
    found[0, :, :wrong] *= -1
    assert gate_other_frames(found, trained, precision).passed is passes


def test_cells_in_a_near_tie_do_not_count() -> None:
    trained = logits()
    trained[:, 0, :100], trained[:, 1:, :100] = 6, 5.9999
    found = trained.copy()
    found[:, 1, :100] = 7
    assert gate_other_frames(found, trained, "fp32").passed
    found[0, 1, 0] = np.nan
    assert not gate_other_frames(found, trained, "fp32").passed


@pytest.mark.parametrize(("points", "passes"), [(0.04, True), (0.06, False)])
def test_miou(points: float, passes: bool) -> None:
    for sign in (-1, 1):
        trained, exported = torch_gates.OnLabels(0.6465), torch_gates.OnLabels(0.6465 + sign * points / 100)
        assert torch_gates.gate_miou(trained, exported, "fp32", "camvid").passed is passes


def test_miou_is_told_with_how_steady_the_labels_are() -> None:
    gate = torch_gates.gate_miou(
        torch_gates.OnLabels(0.5, 0.991), torch_gates.OnLabels(0.5, 0.984), "fp16", "data/camvid"
    )
    assert gate.detail == "camvid: torch 50.00, exported 50.00; steady along the flow: torch 99.10 %, exported 98.40 %"
    still = torch_gates.gate_miou(torch_gates.OnLabels(0.5), torch_gates.OnLabels(0.5, 0.9), "fp32", "camvid")
    assert "steady" not in still.detail


@pytest.mark.parametrize(
    ("agreement", "clear", "error", "failed"),
    [
        (0.9996, 1.0, 9e-4, []),
        (0.9994, 1.0, 9e-4, ["roll-out label agreement"]),
        (0.9996, 0.99985, 9e-4, ["roll-out agreement off near-ties"]),
        (0.9996, 1.0, 2e-3, ["roll-out logits"]),
        (0.9996, 1.0, float("nan"), ["roll-out logits"]),
    ],
)
def test_rollout(agreement: float, clear: float, error: float, failed: list[str]) -> None:
    result = torch_gates.Rollout(np.full(8, agreement), clear, error)
    assert [gate.name for gate in torch_gates.gate_rollout(result, "fp32") if not gate.passed] == failed


@pytest.mark.parametrize(("change", "exact", "passes"), [(0, True, True), (5e-4, True, False), (5e-4, False, True),
                                                         (0.2, False, False)])  # fmt: skip
def test_text(change: float, exact: bool, passes: bool) -> None:
    """Float graphs are compared number by number, int8 weights by the lowest cosine."""
    want = torch.nn.functional.normalize(torch.from_numpy(RANDOM.standard_normal((3, 16))), dim=1)
    got = want.clone()
    got[1, 0] += change
    got = torch.nn.functional.normalize(got, dim=1)
    engine: Any = SimpleNamespace(encode_text=lambda prompts: got.numpy())
    encoder = SimpleNamespace(encode=lambda prompts: want)
    assert torch_gates.gate_text(engine, encoder, ["a"] * 3, exact).passed is passes


@pytest.mark.parametrize(("fault", "passes"), [("", True), ("shared", False), ("reset", False)])
def test_streams_that_share_a_state_or_forget_to_forget_it(fault: str, passes: bool) -> None:
    shared = [0.0]

    class Sums:
        """Logits are the sum of the frames so far."""

        def __init__(self) -> None:
            self.state = shared if fault == "shared" else [0.0]

        def reset(self) -> None:
            if fault != "reset":
                self.state[0] = 0.0

        def logits(self, frame: np.ndarray) -> np.ndarray:
            self.state[0] += float(frame.mean())
            return np.array([self.state[0]])

    frames = [np.full((2, 2, 3), k, np.uint8) for k in range(1, 9)]
    make: Any = Sums
    assert gate_reset(make, frames).passed is passes


def test_a_number_that_is_not_one_never_passes() -> None:
    for above in (True, False):
        for value in (float("nan"), float("inf"), float("-inf")):
            assert not Gate("any", value, 0, above).passed
    assert BOUNDS["fp32"].agreement > BOUNDS["int8"].agreement
