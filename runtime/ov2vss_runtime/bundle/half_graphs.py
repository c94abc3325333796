"""A float32 graph in half precision, by editing its nodes: no exporter, no torch.

Convolutions and linear layers with constant weights compute in half precision, and what lies between two of them too.
Everything that sums, divides or compares stays in float32, and so does the chain over pooled tokens; inputs and outputs
keep their types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

LAYERS = ("Conv", "MatMul", "Gemm")
KEPT_BETWEEN_LAYERS = ("Relu", "Clip", "Add", "MaxPool", "HardSwish")
FLOAT32_CONSTANTS = ("model.stcf.", "links.", "merge_", "mean_", "taps", "up.", "up_")
"""Constants whose layers stay in float32: sums over all tokens, means, interpolation."""
SMALLEST_LAYER = 64
"""Weights of fewer values are no layer."""
LARGEST_FP16 = 65_504.0


def load_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which constants that were stored in half precision (``store`` in docs/bundle.md) are float32 again."""
    from onnx import ModelProto, TensorProto, numpy_helper

    copy = ModelProto.FromString(model.SerializeToString())
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    kept = []
    for node in copy.graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is not None and stored.data_type == TensorProto.FLOAT16 and node.attribute[0].i == TensorProto.FLOAT:
            values = numpy_helper.to_array(stored).astype(np.float32)
            stored.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


class _Half:
    """One conversion: tensors by name, and what has been made of them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import TensorProto, helper, numpy_helper, shape_inference

        self.helper, self.kinds = helper, TensorProto
        self.model = load_constants(model)
        graph = shape_inference.infer_shapes(self.model).graph
        self.constants: dict[str, npt.NDArray[Any]] = {
            t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer
        }
        values = [*graph.value_info, *graph.input, *graph.output]
        self.types = {v.name: v.type.tensor_type.elem_type for v in values}
        self.types |= {t.name: t.data_type for t in self.model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.half: set[str] = set()
        """Tensors that are made in half precision, under the name ``<name>_half``."""
        self.cast: set[str] = set()
        self.full: set[str] = set()

    def fits(self, name: str) -> bool:
        values = self.constants[name]
        return (
            values.dtype == np.float32
            and not name.startswith(FLOAT32_CONSTANTS)
            and float(np.abs(values).max()) <= LARGEST_FP16
        )

    def wanted(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes in half precision."""
        inputs = [name for name in node.input if name]
        constants = [name for name in inputs if name in self.constants]
        if any(not self.fits(name) for name in constants):
            return False
        if node.op_type in LAYERS:
            weight = node.input[1]
            return weight in self.constants and self.constants[weight].size >= SMALLEST_LAYER
        return node.op_type in KEPT_BETWEEN_LAYERS and all(n in self.half for n in inputs if n not in self.constants)

    def run(self) -> onnx.ModelProto:
        outputs = {o.name for o in self.model.graph.output}
        for node in self.model.graph.node:
            if self.wanted(node):
                node.input[:] = [self._halved(name) if name else "" for name in node.input]
                made = list(node.output)
                node.output[:] = [f"{name}_half" for name in made]
                self.half |= set(made)
                self.nodes.append(node)
                for name in made:
                    if name in outputs:
                        self._whole(name)
            else:
                for name in node.input:
                    self._whole(name)
                self.nodes.append(node)
        return self._finished()

    def _halved(self, name: str) -> str:
        if name not in self.half and name not in self.cast:
            if name not in self.constants:
                self._put_cast(name, f"{name}_half", self.kinds.FLOAT16)
            self.cast.add(name)
        return f"{name}_half"

    def _whole(self, name: str) -> None:
        if name in self.half and name not in self.full:
            self._put_cast(f"{name}_half", name, self.kinds.FLOAT)
            self.full.add(name)

    def _put_cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(self.helper.make_node("Cast", [source], [target], f"{target}_cast", to=kind))

    def _finished(self) -> onnx.ModelProto:
        import onnx
        from onnx import numpy_helper

        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]
        used = {name for node in graph.node for name in node.input}
        del graph.initializer[:]
        for name, values in self.constants.items():
            if name in used:
                graph.initializer.append(numpy_helper.from_array(values, name))
            if f"{name}_half" in used:
                graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        onnx.checker.check_model(self.model, full_check=True)
        return self.model


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in mixed precision."""
    return _Half(model).run()


def to_symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """An int8 graph with unsigned activations as TensorRT takes it: signed, symmetric, and biases in float32.

    The ranges are those that were measured; a range that is not symmetric grows to one that is. A range that began at
    zero stood for a ReLU, which comes back.
    """
    import onnx
    from onnx import ModelProto, helper, numpy_helper

    copy = ModelProto.FromString(load_constants(model).SerializeToString())
    graph = copy.graph
    stored = {t.name: t for t in graph.initializer}
    biases = {}
    zeros = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.UINT8}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
        if zero.dtype == np.uint8:
            reach = max(float(zero), 255.0 - float(zero)) * float(scale)
            stored[node.input[1]].CopyFrom(numpy_helper.from_array(np.float32(reach / 127), node.input[1]))
            stored[node.input[2]].CopyFrom(numpy_helper.from_array(np.int8(0), node.input[2]))
        elif zero.dtype == np.int32 and node.input[0] in stored:
            values = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32) * scale
            biases[node.output[0]] = values
    kept = []
    for node in graph.node:
        if biases.keys() & set(node.output):
            continue
        if node.op_type == "QuantizeLinear" and node.input[2] in zeros and zeros[node.input[2]] == 0:
            positive = f"{node.output[0]}_positive"
            kept.append(helper.make_node("Relu", [node.input[0]], [positive], positive))
            node.input[0] = positive
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in biases.items())
    used = {name for node in kept for name in node.input}
    wanted = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(wanted)
    del graph.value_info[:]
    onnx.checker.check_model(copy, full_check=True)
    return copy
