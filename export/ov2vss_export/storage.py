"""fp32 graphs whose constants are stored in half precision: half the size, and the same graph when it is loaded.

A constant that half precision holds exactly is stored so, with a Cast to float32 behind it; every engine folds that
away when it loads the graph. Constants that it does not hold stay as they are, so nothing is rounded here.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALL_CONSTANT = 256
"""Constants of fewer values are left alone."""


def store_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that stores float32 constants as float16 where that is exact."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    casts = []
    for tensor in copy.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL_CONSTANT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_stored"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_load", to=TensorProto.FLOAT))
    nodes = [*casts, *copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    onnx.checker.check_model(copy, full_check=True)
    return copy
