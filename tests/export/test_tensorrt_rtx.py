"""Every graph parses and builds with TensorRT-RTX, ahead of time and without a GPU. Running the plans needs one."""

from pathlib import Path

import pytest

from ov2vss_runtime.bundle import GRAPHS, Bundle, builtin_bundles

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")
DYNAMIC = {"text": (1, 8, 32), "decoder": (1, 32, 128)}
"""Smallest, usual and largest value of the dynamic axes."""


def build_plan(path: Path, graph: str) -> int:
    """Bytes of the plan for compute capability 8.9."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if any(d < 0 for d in tensor.shape):
            dynamic = True
            profile.set_shape(tensor.name, *(tuple(v if d < 0 else d for d in tensor.shape) for v in DYNAMIC[graph]))
    if dynamic:
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return plan.nbytes


@pytest.mark.parametrize("graph", GRAPHS)
def test_tiny_graphs_build(bundle: Path, graph: str) -> None:
    assert build_plan(Bundle.open(bundle).graph_file("fp32", graph), graph) > 100_000


@pytest.mark.parametrize("graph", GRAPHS)
def test_street_lite_graphs_build(graph: str) -> None:
    assert build_plan(Bundle.open(builtin_bundles()["street-lite"]).graph_file("fp32", graph), graph) > 100_000
