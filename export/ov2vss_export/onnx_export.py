"""torch module -> checked ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from ov2vss_export.graphs import GraphSpec
from ov2vss_runtime.errors import BundleError

OPSET = 20
MOST_BYTES = 2**31
"""What an ONNX file holds at most."""


@torch.no_grad()
def export_graph(spec: GraphSpec, lean: bool = True) -> onnx.ModelProto:
    """Export one graph with stable names, dynamic axes by name, shape inference and ``onnx.checker``.

    Args:
        spec: the graph.
        lean: take its form with fewer operations, if it has one.

    Raises:
        BundleError: its weights are more than an ONNX file holds.
    """
    check_weights_fit(spec.name, spec.module)
    shapes = {
        name: {axis: Dim(symbol, min=1, max=65_534) for axis, symbol in spec.dynamic.get(name, {}).items()}
        for name in spec.inputs
    }
    shapes = _shared_dims(shapes)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            spec.lean if lean and spec.lean is not None else spec.module,
            tuple(spec.inputs.values()),
            input_names=list(spec.inputs),
            output_names=spec.outputs,
            dynamic_shapes=tuple(shapes.values()) if spec.dynamic else None,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    model = program.model_proto
    model = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    _name_axes(model, spec)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_weights_fit(name: str, module: torch.nn.Module) -> None:
    """Refuse, before minutes of work, a graph that cannot be written: weights are kept inside of the files."""
    size = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    if size >= MOST_BYTES:
        raise BundleError(
            f"the {name} graph has {size / 2**30:.1f} GB of weights, and an ONNX file holds less than 2",
            "export a smaller model",
        )


def _shared_dims(shapes: dict[str, dict[int, Dim]]) -> dict[str, dict[int, Dim]]:
    """One Dim object per symbol: axes of the same name are the same axis."""
    pool: dict[str, Dim] = {}
    return {n: {a: pool.setdefault(d.__name__, d) for a, d in axes.items()} for n, axes in shapes.items()}


def _name_axes(model: onnx.ModelProto, spec: GraphSpec) -> None:
    """Give dynamic axes of inputs and outputs the contract's symbols."""
    for value in model.graph.input:
        for axis, symbol in spec.dynamic.get(value.name, {}).items():
            dim = value.type.tensor_type.shape.dim[axis]
            if dim.dim_param != symbol:
                dim.ClearField("dim_value")
                dim.dim_param = symbol


def tag(model: onnx.ModelProto, **metadata: str) -> None:
    """Put the bundle's identity into ``metadata_props``, so that a stray file can be traced; drop exporter notes."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))
