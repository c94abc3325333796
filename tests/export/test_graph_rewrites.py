"""The rearranged step and decoder against the model's own, in float64, where only a mistake can make a difference."""

import pytest
import torch
from torch import nn

from ov2vss.model import OV2VSS
from ov2vss.model.stcf import ConvNormReLU
from ov2vss.presets import PRESETS
from ov2vss_export.graph_rewrites import LeanDecoder, LeanStep, row_squares
from ov2vss_export.graphs import DecoderGraph, StepGraph
from tests.conftest import random_model

SIZE = (96, 160)
LATTICE = (3, 5)


def harsh_model(**changes) -> OV2VSS:
    """Norms with gains of both signs, and offsets of every size; biases that are not zero."""
    model = random_model(PRESETS["tiny"].model.model_copy(update=changes))
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, ConvNormReLU):
            nn.init.uniform_(module.offset, -0.5, 0.5)
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.3)
    pyramid = model.stcf.pyramid
    with torch.no_grad():
        for layer, gain in zip(pyramid.children(), (-0.7, 1.3, -1.1, 0.4, -2.0), strict=True):
            layer.gain.fill_(gain)
    return model.double().eval()


def step_inputs(model: OV2VSS) -> list[torch.Tensor]:
    config, dtype = model.config, torch.float64
    grids = [(SIZE[0] // s, SIZE[1] // s) for s in (8, 16, 32)]
    count = model.tokens(model.backbone(torch.zeros(1, 3, *SIZE, dtype=dtype))).shape[2]
    return [
        *(torch.randn(1, config.width, *grid, dtype=dtype) for grid in grids),
        torch.randn(4, count, config.width, dtype=dtype),
        torch.randn(config.regions, config.width, dtype=dtype),
        torch.randn(config.position_width, 6, 10, dtype=dtype),
        state_of(model, torch.randn(config.references, 4, count, config.width, dtype=dtype), grids),
    ]


def state_of(model: OV2VSS, chain: torch.Tensor, grids: list[tuple[int, int]]) -> torch.Tensor:
    """A state as the step graph takes it, with a local memory where the model has one."""
    if model.memory is None:
        return chain
    maps = [torch.randn(2, model.config.width // 2, *grid, dtype=chain.dtype) for grid in grids[:2]]
    return torch.cat([part.flatten() for part in (chain, *maps)])


@pytest.mark.parametrize(
    "changes",
    [
        {"rfe_residual": True, "stcf_residual": True},
        {"rfe_residual": False, "stcf_residual": False},
        {"rfe_residual": False, "stcf_residual": True},
        {"rfe_residual": False, "stcf_residual": False, "fusion": "add"},
        {"rfe_residual": False, "stcf_residual": False, "local_memory": True},
        {"rfe_residual": True, "stcf_residual": True, "local_memory": True},
    ],
)
@torch.no_grad()
def test_step(changes: dict) -> None:
    model = harsh_model(**changes)
    inputs = step_inputs(model)
    lean = LeanStep(model, LATTICE)
    assert lean.direct == (changes == {"rfe_residual": False, "stcf_residual": False})
    for name, got, want in zip(("guidance", "state"), lean(*inputs), StepGraph(model, LATTICE)(*inputs), strict=True):
        assert got.shape == want.shape
        error = float((got - want).abs().max() / want.abs().max())
        assert error < 1e-11, (name, error)


@pytest.mark.parametrize("zero_gains", [False, True])
@torch.no_grad()
def test_decoder(zero_gains: bool) -> None:
    model = harsh_model()
    if zero_gains:
        model.decoder.norm.weight[::3] = 0
    config, dtype = model.config, torch.float64
    grid, size = (6, 10), (SIZE[0] // 8, SIZE[1] // 8)
    inputs = [
        3 + torch.randn(config.decoder_width, *size, dtype=dtype),
        nn.functional.normalize(torch.randn(config.embed_dim, *grid, dtype=dtype), dim=0),
        torch.randn(2, grid[0] * grid[1], config.embed_dim, dtype=dtype),
        nn.functional.normalize(torch.randn(7, config.embed_dim, dtype=dtype), dim=1),
    ]
    lean = LeanDecoder(model, grid, size)
    assert lean.flipped
    got, want = lean(*inputs), DecoderGraph(model)(*inputs)
    assert got.shape == want.shape == (7, *size)
    error = float((got - want).abs().max() / want.abs().max())
    # A gain of zero is replaced by 1e-6.
    assert error < (1e-5 if zero_gains else 1e-11), error


@pytest.mark.parametrize("ratio", [1, 1000])
@torch.no_grad()
def test_decoder_with_means_that_are_large_beside_the_deviation(ratio: float) -> None:
    """In float32 against the model in float64: E[x^2] - E[x]^2 would lose all digits of the variance."""
    model = harsh_model()
    config = model.config
    grid, size = (6, 10), (SIZE[0] // 8, SIZE[1] // 8)
    guidance = ratio * torch.randn(config.decoder_width, 1, 1).double() + torch.randn(config.decoder_width, *size)
    # All maps of a group with the same mean, or the group's deviation is that of its means.
    groups = model.decoder.norm.num_groups
    guidance = guidance - guidance.mean((1, 2), keepdim=True) + ratio * (1 + torch.arange(groups).repeat_interleave(
        config.decoder_width // groups
    )[:, None, None])  # fmt: skip
    inputs = [
        guidance,
        nn.functional.normalize(torch.randn(config.embed_dim, *grid).double(), dim=0),
        torch.randn(2, grid[0] * grid[1], config.embed_dim).double(),
        nn.functional.normalize(torch.randn(7, config.embed_dim).double(), dim=1),
    ]
    want = DecoderGraph(model)(*inputs)
    model = model.float()
    got = LeanDecoder(model, grid, size)(*(x.float() for x in inputs))
    assert float((got - want).abs().max() / want.abs().max()) < 3e-7 * max(10, ratio)


@torch.no_grad()
def test_zero_gains_of_the_pyramid() -> None:
    model = harsh_model()
    for layer in model.stcf.pyramid.children():
        layer.gain.zero_()
    inputs = step_inputs(model)
    got, want = LeanStep(model, LATTICE)(*inputs)[0], StepGraph(model, LATTICE)(*inputs)[0]
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4


@pytest.mark.parametrize("rows", [1, 7, 12, 17, 590])
def test_row_squares(rows: int) -> None:
    x = torch.randn(2, rows, 33, dtype=torch.float64)
    assert torch.allclose(row_squares(x), x.square().sum(-1, keepdim=True), rtol=1e-12)
