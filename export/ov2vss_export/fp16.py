"""fp16 graphs: convolutions and linear layers in half precision, everything that sums or divides in float32.

Inputs and outputs keep the types of the contract (uint8 frame, int64 tokens, float32 elsewhere), so that states,
features and embeddings of all precisions are interchangeable.
"""

from __future__ import annotations

import ast
import warnings

import onnx
from onnxconverter_common import float16

FLOAT32_OPERATORS = (
    "Div",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Softmax",
    "ReduceMean",
    "ReduceSum",
    "ReduceL2",
    "Pow",
    "Sqrt",
    "Reciprocal",
)
FLOAT32_MODULES = (
    "model.stcf.first",
    "model.stcf.steps",
    "model.stcf.key",
    "model.stcf.value",
    "model.stcf.merge_values",
)
"""The chain over pooled tokens: small, and its sums run over all of them."""
EXACT_CLASSES = "ov2vss.model.dense.exact."
"""Where the classes of modules are that stay in float32."""
LARGEST, SMALLEST = 65_504.0, 6.1e-5
"""Of normal fp16 numbers."""


def module_of(node: onnx.NodeProto) -> str:
    """Path of the module that a node comes from, as the exporter noted it; empty for the graph's own arithmetic."""
    noted = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "['']")
    path = [scope for scope in ast.literal_eval(noted)[:-1] if scope]
    return path[-1] if path else ""


def in_exact_class(node: onnx.NodeProto) -> bool:
    """Whether a node comes from a module of a class that is to stay in float32, under whatever name."""
    noted = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.class_hierarchy"), "")
    return EXACT_CLASSES in noted


def stays_float32(node: onnx.NodeProto, extreme: set[str]) -> bool:
    """Norms, softmax, their parts; cosines and affinities; the chain of states; users of ``extreme`` constants."""
    module = module_of(node)
    if node.op_type in ("Cast", *FLOAT32_OPERATORS) or module.startswith(FLOAT32_MODULES) or extreme & set(node.input):
        return True
    if in_exact_class(node) or (module == "" and node.op_type == "MatMul"):
        return True
    # What is left of a norm that is written out: everything of the pyramid's layers but the convolution.
    return module.startswith("model.stcf.pyramid.") and node.op_type != "Conv"


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in mixed precision. It must still carry the exporter's notes (before :func:`onnx_export.tag`).

    Constants that fp16 cannot hold (an attention mask, a large weight) stay in float32, with all that uses them.
    """
    extreme = set()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = abs(onnx.numpy_helper.to_array(tensor))
            if values.size and (values.max() > LARGEST or (values.size == 1 and 0 < values.max() < SMALLEST)):
                extreme.add(tensor.name)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    kept = [node.name for node in copy.graph.node if stays_float32(node, extreme)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights below 1e-7 become 1e-7
        converted = float16.convert_float_to_float16(
            copy,
            min_positive_val=1e-7,
            max_finite_val=LARGEST,
            keep_io_types=True,
            node_block_list=kept,
            op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *FLOAT32_OPERATORS],
        )
    _join_islands(converted, {t.name: t for t in model.graph.initializer})
    _restore_outputs(converted, model)
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _join_islands(model: onnx.ModelProto, original: dict[str, onnx.TensorProto]) -> None:
    """The converter goes through fp16 between two float32 operators, and to their weights: undo both."""
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    stored = {t.name for t in graph.initializer}
    instead: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "Cast" or _target(node) != onnx.TensorProto.FLOAT:
            continue
        source, before = node.input[0], made.get(node.input[0])
        if before is not None and before.op_type == "Cast" and _target(before) == onnx.TensorProto.FLOAT16:
            instead[node.output[0]] = instead.get(before.input[0], before.input[0])
        elif source in stored and original[source].data_type == onnx.TensorProto.FLOAT:
            name = f"{source}_float32"
            if name not in stored:
                exact = onnx.TensorProto.FromString(original[source].SerializeToString())
                exact.name = name
                graph.initializer.append(exact)
                stored.add(name)
            instead[node.output[0]] = name
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = instead.get(name, name)
    # What nobody uses any more: casts first, then weights.
    outputs = {o.name for o in graph.output}
    while True:
        used = outputs | {name for node in graph.node for name in node.input}
        idle = [n for n in graph.node if n.op_type == "Cast" and not set(n.output) & used]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _restore_outputs(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """The converter keeps the types of outputs only where an input is floating-point too."""
    made = {output: node for node in model.graph.node for output in node.output}
    for output, wanted in zip(model.graph.output, original.graph.output, strict=True):
        kind = wanted.type.tensor_type.elem_type
        if output.type.tensor_type.elem_type != kind:
            node = made[output.name]
            if node.op_type != "Cast":
                inner = f"{output.name}_fp16"
                node.output[list(node.output).index(output.name)] = inner
                node = onnx.helper.make_node("Cast", [inner], [output.name], f"{output.name}_cast", to=kind)
                model.graph.node.append(node)
            next(a for a in node.attribute if a.name == "to").i = kind
            output.type.tensor_type.elem_type = kind


def _target(cast: onnx.NodeProto) -> int:
    return next(a.i for a in cast.attribute if a.name == "to")
