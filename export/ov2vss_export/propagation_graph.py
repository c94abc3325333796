"""Moving and blending logits as a graph, for engines whose logits are on a GPU (the rule: docs/temporal.md).

    python -m ov2vss_export.propagation_graph

writes ``runtime/ov2vss_runtime/engines/propagation.onnx``, the same for every bundle and installed with the runtime.
The flow is found on the processor, where the frames are; its places and its trust go up, a few kilobytes a frame.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FILE = Path(__file__).parents[2] / "runtime/ov2vss_runtime/engines/propagation.onnx"
OPSET = 18
"""GridSample in the form of opset 16, and TopK, have CUDA kernels in ONNX Runtime."""
NOTHING = -1e30
"""A logit that loses to every other: with it there are two best ones of a single class too."""


def propagation_graph() -> onnx.ModelProto:
    """One frame takes from the one before it.

    ===========  ==================  ==============================================================================
    ``past``     f32 [N, h, w]       logits of the frame before
    ``present``  f32 [N, h, w]       logits of this frame
    ``grid``     f32 [1, h, w, 2]    where each cell was, -1 to 1 from the first cell's centre to the last one's
    ``share``    f32 [h, w]          share of the past times the flow's trust
    ``lean``     f32 []              how much a difference in doubt changes the share
    ``steep``    f32 []              1 / margin of the best logit over the second from which on there is no doubt
    ===========  ==================  ==============================================================================

    Outputs ``moved``, the past alone, and ``blended``, both f32 [N, h, w].
    """
    node = helper.make_node
    sample = {"mode": "bilinear", "padding_mode": "border", "align_corners": 1}
    nodes = [
        node("Unsqueeze", ["past", "axis"], ["past_batch"]),
        node("GridSample", ["past_batch", "grid"], ["moved_batch"], **sample),
        node("Squeeze", ["moved_batch", "axis"], ["moved"]),
        *_doubt("present", "doubt"),
        *_doubt("past", "past_doubt"),
        node("Unsqueeze", ["past_doubt", "axis"], ["past_doubt_batch"]),
        node("GridSample", ["past_doubt_batch", "grid"], ["moved_doubt_batch"], **sample),
        node("Squeeze", ["moved_doubt_batch", "axis"], ["moved_doubt"]),
        node("Sub", ["doubt", "moved_doubt"], ["surer_past"]),
        node("Mul", ["surer_past", "lean"], ["leaning"]),
        node("Add", ["leaning", "one"], ["unbounded"]),
        node("Clip", ["unbounded", "zero", "one"], ["factor"]),
        node("Mul", ["factor", "share"], ["taken"]),
        node("Sub", ["moved", "present"], ["difference"]),
        node("Mul", ["difference", "taken"], ["change"]),
        node("Add", ["present", "change"], ["blended"]),
    ]
    value, planes = helper.make_tensor_value_info, ["N", "h", "w"]
    graph = helper.make_graph(
        nodes,
        "propagation",
        [
            value("past", TensorProto.FLOAT, planes),
            value("present", TensorProto.FLOAT, planes),
            value("grid", TensorProto.FLOAT, [1, "h", "w", 2]),
            value("share", TensorProto.FLOAT, ["h", "w"]),
            value("lean", TensorProto.FLOAT, []),
            value("steep", TensorProto.FLOAT, []),
        ],
        [value("moved", TensorProto.FLOAT, planes), value("blended", TensorProto.FLOAT, planes)],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
            helper.make_tensor("first", TensorProto.INT64, [1], [1]),
            helper.make_tensor("two", TensorProto.INT64, [1], [2]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [NOTHING]),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="ov2vss"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _doubt(logits: str, doubt: str) -> list[onnx.NodeProto]:
    """``[N, h, w]`` -> ``[1, h, w]``: 1 where the two best logits are equal, 0 where they are far apart."""

    def node(kind: str, inputs: list[str], outputs: list[str], **attributes: int) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, outputs, **attributes)

    def own(name: str) -> str:
        return f"{logits}_{name}"

    return [
        node("Slice", [logits, "axis", "first", "axis"], [own("row")]),
        node("Mul", [own("row"), "zero"], [own("blank")]),
        node("Add", [own("blank"), "nothing"], [own("nothing")]),
        node("Concat", [logits, own("nothing")], [own("rows")], axis=0),
        node("TopK", [own("rows"), "two"], [own("best"), own("places")], axis=0, largest=1, sorted=1),
        node("Split", [own("best")], [own("highest"), own("second")], axis=0, num_outputs=2),
        node("Sub", [own("highest"), own("second")], [own("margin")]),
        node("Mul", [own("margin"), "steep"], [own("lead")]),
        node("Sub", ["one", own("lead")], [own("rest")]),
        node("Max", [own("rest"), "zero"], [doubt]),
    ]


if __name__ == "__main__":
    FILE.write_bytes(propagation_graph().SerializeToString(deterministic=True))
    print(FILE)
