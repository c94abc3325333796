"""How fast this machine could be: operations of every graph, and the measured peak of matrix products.

    python benchmarks/limit.py
    python benchmarks/limit.py --bundle my-bundle --classes 124

Operations are multiplications and additions of convolutions and matrix products, counted from the ONNX files, after
the exact rearrangements of the export: nobody gains by doing more. Everything else (norms, activations, resizing) is
not counted, so that the floor is one that no engine can pass. The peak is that of the best library that is installed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from pathlib import Path

import click
import numpy as np
from machine import machine

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.processors import available_threads

FRAME_GRAPHS = ("backbone", "stcf_step", "decoder")
SMALL = 4096
"""Bytes of constants that shape inference may want to see; of larger ones, weights, it needs the shape alone."""
SIDES = (512, 1024, 2048)
"""Of the square matrices whose product is timed."""
EMULATED = 0.1
"""Of the rate in fp32: what is slower is computed without instructions of its own."""
SECONDS = 0.4
"""Each product is repeated for so long, and the fastest counts: a peak is what the machine can do undisturbed."""


def operations(path: Path, classes: int) -> Counter[str]:
    """Operations of one run of a graph by type of arithmetic, ``float`` and ``int8`` (layers between QDQ nodes)."""
    import onnx

    model = onnx.load(path)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "N":
                dim.dim_value = classes
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > SMALL:
            tensor.ClearField("raw_data")
    # Inferred shapes of the file are for any N.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        kind = "int8" if all(made.get(name) == "DequantizeLinear" for name in node.input[:2]) else "float"
        sizes = [shapes.get(name) for name in (node.input[0], node.input[1], node.output[0])]
        if any(size is None or 0 in size for size in sizes):
            raise ValueError(f"{path.name}: the shape of {node.name} is not known")
        found[kind] += 2 * _products(node, *sizes)
    return found


def _products(node, first: list[int], second: list[int], out: list[int]) -> int:
    """Multiplications of a Conv, ConvTranspose, MatMul or Gemm."""
    if node.op_type == "Conv":
        return prod(out) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(out) * first[-2 if transposed else -1]


def bundle_operations(bundle: Bundle, variant: str, classes: int) -> dict[str, Counter[str]]:
    """:func:`operations` of the graphs that run for every frame."""
    return {name: operations(bundle.graph_file(variant, name), classes) for name in FRAME_GRAPHS}


# -- the peak ----------------------------------------------------------------------------------------------------------


def _fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest call."""
    call()
    end, best = time.perf_counter() + SECONDS, np.inf
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def _product_model(side: int, int8: bool) -> bytes:
    """One product of square matrices as ONNX, in float32 or of uint8 and int8."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = random.integers(-100, 100, (side, side)).astype(np.int8 if int8 else np.float32)
    kind, out = (TensorProto.UINT8, TensorProto.INT32) if int8 else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if int8 else "MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, [side, side])],
        [helper.make_tensor_value_info("y", out, [side, side])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def _onnxruntime(side: int, kind: str, threads: int) -> Callable[[], object] | None:
    import onnxruntime

    if kind == "bf16":
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_product_model(side, kind == "int8"), options)
    x = np.ones((side, side), np.uint8 if kind == "int8" else np.float32)
    return lambda: session.run(None, {"x": x})


def _openvino(side: int, kind: str, threads: int) -> Callable[[], object] | None:
    import openvino

    if kind == "int8":
        return None
    core = openvino.Core()
    if kind == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    options = {"INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(kind, kind), "INFERENCE_NUM_THREADS": threads}
    model = core.read_model(_product_model(side, False), b"")
    request = core.compile_model(model, "CPU", options | {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ones((side, side), np.float32)))
    return request.infer


def _torch(side: int, kind: str, threads: int) -> Callable[[], object] | None:
    import torch

    torch.set_num_threads(threads)
    if kind == "int8":
        x = torch.ones(side, side, dtype=torch.int8)
        return lambda: torch._int_mm(x, x)
    x = torch.ones(side, side, dtype=torch.bfloat16 if kind == "bf16" else torch.float32)
    return lambda: x @ x


def peaks(threads: int) -> dict[str, tuple[float, str]]:
    """Measured peak of matrix products in 1e9 operations a second, with the library that reached it, by type."""
    found: dict[str, tuple[float, str]] = {}
    for kind in ("fp32", "bf16", "int8"):
        for library, make in (("onnxruntime", _onnxruntime), ("openvino", _openvino), ("torch", _torch)):
            if find_spec(library) is None:
                continue
            for side in SIDES:
                call = make(side, kind, threads)
                if call is None:
                    continue
                rate = 2 * side**3 / _fastest(call) / 1e9
                found[kind] = max(found.get(kind, (0.0, "")), (rate, library))
                if rate < EMULATED * found["fp32"][0]:
                    break  # the processor has no instructions for it: a larger product takes minutes and is no faster
    return found


def floor_ms(counted: dict[str, Counter[str]], precision: str, peak: dict[str, tuple[float, str]]) -> float | None:
    """Least possible milliseconds a frame: every operation at the peak of its type. None where no peak was measured
    (fp16 on processors)."""
    kind = {"fp32": "fp32", "bf16": "bf16", "int8": "fp32"}.get(precision)
    if kind is None or kind not in peak or (precision == "int8" and "int8" not in peak):
        return None
    whole = sum(counted.values(), Counter())
    return 1e-6 * (whole["float"] / peak[kind][0] + (whole["int8"] / peak["int8"][0] if whole["int8"] else 0.0))


@click.command(context_settings=CONTEXT)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option("--classes", default=None, type=click.IntRange(1), help="Number of classes [default: the bundle's].")
@click.option(
    "--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: physical cores]."
)
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(bundle: str, classes: int | None, threads: int | None, json_file: Path | None) -> None:
    """Print operations per graph, the machine's peaks, and the least time of a frame."""
    opened, threads = Bundle.open(bundle), threads or available_threads()
    classes = classes or len(opened.default_vocabulary)
    peak = peaks(threads)
    for kind, (rate, library) in peak.items():
        click.echo(f"peak {kind}: {rate:.0f}e9 operations a second ({library}, {threads} threads)")
    rows = []
    for variant, info in opened.manifest.variants.items():
        counted = bundle_operations(opened, variant, classes)
        for precision in ("fp32", "bf16") if info.precision == "fp32" else (info.precision,):
            floor = floor_ms(counted, precision, peak)
            rows.append({"variant": variant, "precision": precision, "floor_ms": floor} | {"operations": counted})
            parts = ", ".join(f"{name} {sum(n.values()) / 1e9:.2f}" for name, n in counted.items())
            told = "no peak for it" if floor is None else f"{floor:.1f} ms"
            click.echo(f"{variant} in {precision}, {classes} classes: 1e9 operations {parts}; least time {told}")
    if json_file is not None:
        record = {"bundle": opened.manifest.name, "classes": classes, "threads": threads, "machine": machine()}
        json_file.write_text(json.dumps(record | {"peaks": peak, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
