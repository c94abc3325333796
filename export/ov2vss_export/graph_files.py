"""Graphs as files of a bundle: what is noted in them, and what the manifest says of them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import onnx

from ov2vss_export.onnx_export import save_onnx, tag
from ov2vss_runtime.bundle.bundle import GraphInfo, TensorInfo, builtin_bundles, file_sha256


def tagged(
    protos: dict[str, onnx.ModelProto], precision: str, checkpoint_sha256: str, size: tuple[int, int]
) -> dict[str, onnx.ModelProto]:
    """Copies with the bundle's identity in the place of the exporter's notes."""
    copies = {name: onnx.ModelProto.FromString(proto.SerializeToString()) for name, proto in protos.items()}
    for name, proto in copies.items():
        tag(
            proto,
            producer=f"ov2vss {version('ov2vss')}",
            graph=name,
            precision=precision,
            checkpoint_sha256=checkpoint_sha256,
            size=f"{size[0]}x{size[1]}",
        )
    return copies


def write_graph(proto: onnx.ModelProto, path: Path, weights: str) -> GraphInfo:
    """Save a graph; what the manifest says of it."""
    save_onnx(proto, path)
    return GraphInfo(
        file=path.name,
        sha256=file_sha256(path),
        opset=next(o.version for o in proto.opset_import if o.domain == ""),
        weights=weights,
        inputs=[_tensor_info(v) for v in proto.graph.input],
        outputs=[_tensor_info(v) for v in proto.graph.output],
    )


def shared_text(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The text graph of an installed bundle, if it is this one but for its notes: bundles then share a file by its
    sha256."""

    def bare(model: onnx.ModelProto) -> bytes:
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        tag(copy)
        return copy.SerializeToString(deterministic=True)

    for folder in builtin_bundles().values():
        path = folder / "text.onnx"
        if path.is_file() and bare(known := onnx.load(path)) == bare(proto):
            return known
    return proto


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    return TensorInfo(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        shape=[d.dim_param or d.dim_value for d in tensor.shape.dim],
    )
