"""The label map as a graph, for engines whose logits are on a GPU: bilinear upsampling and a running argmax.

    python -m ov2vss_export.label_graph

writes ``runtime/ov2vss_runtime/engines/label_map.onnx``, the same for every bundle and installed with the runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FILE = Path(__file__).parents[2] / "runtime/ov2vss_runtime/engines/label_map.onnx"
OPSET = 18
"""ONNX Runtime has CUDA kernels for all of these operators in this form; it has none for ReduceMax of opset 20."""


def label_graph() -> onnx.ModelProto:
    """One chunk of classes joins the labels so far.

    ============  ===================  =========================================================
    ``logits``    f32 [N, h, w]        of this chunk
    ``size``      int64 [2]            (H, W) of the label map
    ``offset``    int64 []             index of the chunk's first class
    ``best_in``   f32 [H, W]           largest upsampled logit so far; minus infinity at first
    ``labels_in``  int32 [H, W]         its class
    ============  ===================  =========================================================

    Outputs ``best``, ``labels`` (int32) and ``labels_byte`` (uint8). On ties the lower class wins.
    """
    nodes = [
        helper.make_node("Unsqueeze", ["logits", "zero"], ["batch"]),
        helper.make_node("Shape", ["logits"], ["classes"], start=0, end=1),
        helper.make_node("Concat", ["one", "classes", "size"], ["sizes"], axis=0),
        helper.make_node(
            "Resize",
            ["batch", "", "", "sizes"],
            ["upsampled"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Squeeze", ["upsampled", "zero"], ["maps"]),
        helper.make_node("ReduceMax", ["maps", "zero"], ["highest"], keepdims=0),
        helper.make_node("ArgMax", ["maps"], ["winner"], axis=0, keepdims=0, select_last_index=0),
        helper.make_node("Add", ["winner", "offset"], ["shifted"]),
        helper.make_node("Cast", ["shifted"], ["candidate"], to=TensorProto.INT32),
        helper.make_node("Greater", ["highest", "best_in"], ["better"]),
        helper.make_node("Where", ["better", "highest", "best_in"], ["best"]),
        helper.make_node("Where", ["better", "candidate", "labels_in"], ["labels"]),
        helper.make_node("Cast", ["labels"], ["labels_byte"], to=TensorProto.UINT8),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "label_map",
        [
            value("logits", TensorProto.FLOAT, ["N", "h", "w"]),
            value("size", TensorProto.INT64, [2]),
            value("offset", TensorProto.INT64, []),
            value("best_in", TensorProto.FLOAT, ["H", "W"]),
            value("labels_in", TensorProto.INT32, ["H", "W"]),
        ],
        [
            value("best", TensorProto.FLOAT, ["H", "W"]),
            value("labels", TensorProto.INT32, ["H", "W"]),
            value("labels_byte", TensorProto.UINT8, ["H", "W"]),
        ],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="ov2vss"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    FILE.write_bytes(label_graph().SerializeToString(deterministic=True))
    print(FILE)
