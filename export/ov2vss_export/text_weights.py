"""Weight-only int8 for the text graph: a quarter of the size, computed in float32.

Matrices are stored as int8 with one scale per ``BLOCK`` inputs of an output channel, the word table with one scale per
``BLOCK`` entries of a row. As rows of ``BLOCK`` values they need only the plain per-axis DequantizeLinear, which every
engine knows, and a reshape back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCK = 32
MIN_ELEMENTS = 4096


def quantize_rows(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """``[R, BLOCK]`` -> int8 ``[R, BLOCK]`` and scales ``[R]``; symmetric, round to nearest."""
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-12).astype(np.float32) / np.float32(127)
    return np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8), scale


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large 2-d float32 weights of MatMul and Gather are int8."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    users: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            users.setdefault(name, []).append((node, position))
    kept: list[onnx.TensorProto] = []
    restored: list[onnx.NodeProto] = []
    for initializer in graph.initializer:
        kind = _kind(initializer, users.get(initializer.name, []))
        if kind is None:
            kept.append(initializer)
            continue
        weight = numpy_helper.to_array(initializer)
        tensors, nodes = _stored(initializer.name, weight, inputs_first=kind == "MatMul")
        kept += tensors
        restored += nodes
    nodes = [*restored, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def _stored(
    name: str, weight: npt.NDArray[np.float32], inputs_first: bool
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Tensors and nodes that stand for ``weight``; blocks run along its first axis, or along its second one."""
    matrix = weight.T if inputs_first else weight
    values, scale = quantize_rows(np.ascontiguousarray(matrix).reshape(-1, BLOCK))
    tensors = [
        numpy_helper.from_array(values, f"{name}_int8"),
        numpy_helper.from_array(scale, f"{name}_scale"),
        numpy_helper.from_array(np.array(matrix.shape, np.int64), f"{name}_shape"),
    ]
    rows, back = f"{name}_rows", f"{name}_matrix" if inputs_first else name
    nodes = [
        helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [rows], f"{name}_dequantize", axis=0),
        helper.make_node("Reshape", [rows, f"{name}_shape"], [back], f"{name}_reshape"),
    ]
    if inputs_first:
        nodes.append(helper.make_node("Transpose", [back], [name], f"{name}_transpose", perm=[1, 0]))
    return tensors, nodes


def _kind(initializer: onnx.TensorProto, uses: list[tuple[onnx.NodeProto, int]]) -> str | None:
    """``MatMul`` or ``Gather`` if all uses are of that kind and the blocks fit, else None (left as it is)."""
    if initializer.data_type != TensorProto.FLOAT or len(initializer.dims) != 2 or not uses:
        return None
    rows, columns = initializer.dims
    if rows * columns < MIN_ELEMENTS:
        return None
    kinds = {(node.op_type, position) for node, position in uses}
    if kinds == {("MatMul", 1)} and rows % BLOCK == 0:
        return "MatMul"
    row_gather = all(not any(a.name == "axis" and a.i for a in node.attribute) for node, _ in uses)
    if kinds == {("Gather", 0)} and columns % BLOCK == 0 and row_gather:
        return "Gather"
    return None
