"""Weight-only int8 for the text graph: a quarter of the size, computed in float32.

Matrices are stored as int8 with one scale per ``BLOCK`` rows and output channel, the word table with one scale per
``BLOCK`` entries of a row. They are turned back into float32 by Cast, Mul and Reshape, which engines fold when they
load the graph; the word table, half of a small BERT, is gathered first and only the gathered rows are turned back.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCK = 32
MIN_ELEMENTS = 4096


def quantize_blocks(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """``[K, N]`` -> int8 ``[K/BLOCK, BLOCK, N]`` and scales ``[K/BLOCK, 1, N]``; symmetric, round to nearest."""
    blocks = weight.reshape(-1, BLOCK, weight.shape[1])
    scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), 1e-12) / 127
    return np.clip(np.rint(blocks / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


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
    gathers: dict[int, list[onnx.NodeProto]] = {}
    for initializer in graph.initializer:
        uses = users.get(initializer.name, [])
        kind = _kind(initializer, uses)
        name = initializer.name
        if kind == "MatMul":
            weight = numpy_helper.to_array(initializer)
            values, scale = quantize_blocks(weight)
            kept += [
                numpy_helper.from_array(values, f"{name}_int8"),
                numpy_helper.from_array(scale, f"{name}_scale"),
                numpy_helper.from_array(np.array(weight.shape, np.int64), f"{name}_shape"),
            ]
            restored += _restore(f"{name}_int8", f"{name}_scale", f"{name}_shape", name)
        elif kind == "Gather":
            values, scale = quantize_blocks(numpy_helper.to_array(initializer).T)
            kept += [
                numpy_helper.from_array(np.ascontiguousarray(values.transpose(2, 0, 1)), f"{name}_int8"),
                numpy_helper.from_array(np.ascontiguousarray(scale.transpose(2, 0, 1)), f"{name}_scale"),
            ]
            for node, _ in uses:
                out, indices = node.output[0], node.input[1]
                rank = _rank(graph, indices)
                shape = numpy_helper.from_array(np.array([0] * rank + [initializer.dims[1]], np.int64), f"{out}_shape")
                kept.append(shape)
                gathers[id(node)] = [
                    helper.make_node("Gather", [f"{name}_int8", indices], [f"{out}_int8"], axis=0),
                    helper.make_node("Gather", [f"{name}_scale", indices], [f"{out}_scale"], axis=0),
                    *_restore(f"{out}_int8", f"{out}_scale", shape.name, out),
                ]
        else:
            kept.append(initializer)
    nodes = [*restored, *(n for node in graph.node for n in gathers.get(id(node), [node]))]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


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


def _restore(values: str, scale: str, shape: str, out: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [values], [f"{out}_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_float", scale], [f"{out}_blocks"]),
        helper.make_node("Reshape", [f"{out}_blocks", shape], [out]),
    ]


def _rank(graph: onnx.GraphProto, name: str) -> int:
    for value in (*graph.input, *graph.value_info):
        if value.name == name:
            return len(value.type.tensor_type.shape.dim)
    for initializer in graph.initializer:
        if initializer.name == name:
            return len(initializer.dims)
    raise ValueError(f"the rank of {name} is unknown: run shape inference first")
