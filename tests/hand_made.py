"""Bundles written node by node, with tensor names of their own: what they compute is a few lines of numpy.

There is no torch in them and nothing of the trained models: the runtime knows of their tensors what the manifest says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from ov2vss_runtime.bundle.bundle import FORMAT_VERSION, MANIFEST, file_sha256
from ov2vss_runtime.stream.preprocess import resize_frame

SIZE, GRID, WIDTH = (64, 96), (8, 12), 8
"""Frames, features and embeddings: [64, 96, 3] -> [WIDTH, 8, 12]."""
WORDS = ["[UNK]", "road", "sky", "car", "tree", "dog", "sea"]
MIX = np.random.RandomState(1).standard_normal((WIDTH, 3)).astype(np.float32)
VECTORS = np.random.RandomState(2).standard_normal((len(WORDS), WIDTH)).astype(np.float32)
SCALE, KEEP = 20.0, 0.75


class HandMade:
    """One such bundle in numpy.

    Args:
        state: the step carries a blend of feature maps.
        warmup: runs of the step before the first frame.
        distant: the step adds the mean feature of the distant frame.
        step: whether there is a step graph at all.
    """

    def __init__(self, state: bool = False, warmup: int = 0, distant: bool = False, step: bool = True) -> None:
        self.state, self.warmup, self.distant, self.step = state, warmup, distant, step

    # -- in numpy --------------------------------------------------------------------------------------------------

    @staticmethod
    def features(frame: np.ndarray) -> np.ndarray:
        """``[WIDTH, 8, 12]`` of unit length: block means, centred, mixed."""
        x = resize_frame(frame, SIZE).astype(np.float32).reshape(GRID[0], 8, GRID[1], 8, 3).mean((1, 3)) / 255 - 0.5
        x = np.einsum("dc,hwc->dhw", MIX, x)
        return x / np.sqrt((x * x).sum(0, keepdims=True) + 1e-6)

    @staticmethod
    def embeddings(words: list[str]) -> np.ndarray:
        """Unit vectors of single words."""
        rows = VECTORS[[WORDS.index(word) for word in words]]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def logits(
        self, frames: list[np.ndarray], words: list[str], gap: int = 1, distant: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Logits of every frame; the distant frame is the first unless another is given."""
        far = self.features(frames[0] if distant is None else distant).mean((1, 2))[:, None, None]
        rows, states, found = self.embeddings(words), [], []
        for index, frame in enumerate(frames):
            now = guidance = self.features(frame)
            if self.state:
                before = states[index - gap] if index >= gap else self._warmed(self.features(frames[0]))
                guidance = now + before
                states.append(KEEP * before + now)
            if self.distant:
                guidance = guidance + far
            found.append(SCALE * np.einsum("nd,dhw->nhw", rows, guidance))
        return found

    def _warmed(self, first: np.ndarray) -> np.ndarray:
        state = np.zeros_like(first)
        for _ in range(self.warmup):
            state = KEEP * state + first
        return state

    # -- as graphs -------------------------------------------------------------------------------------------------

    def write(self, folder: Path, **manifest: Any) -> Path:
        """The bundle; ``manifest`` replaces fields."""
        folder.mkdir(parents=True)
        graphs = {"text": _text(), "backbone": _backbone(), "decoder": _decoder("blend" if self.step else "scene")}
        if self.step:
            graphs["stcf_step"] = self._step()
        infos = {}
        for name, model in graphs.items():
            path = folder / f"{name}.onnx"
            path.write_bytes(model.SerializeToString())
            infos[name] = {"file": path.name, "sha256": file_sha256(path), "opset": 20, "weights": "fp32"}
            infos[name] |= {k: [_tensor(v) for v in getattr(model.graph, k[:-1])] for k in ("inputs", "outputs")}
        tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.enable_padding()
        tokenizer.save(str(folder / "tokenizer.json"))
        for name in ("vocabulary", "parity"):
            save_file({"nothing": np.zeros(1, np.float32)}, folder / f"{name}.safetensors")

        def file(name: str) -> dict[str, str]:
            return {"file": name, "sha256": file_sha256(folder / name)}

        state = {"input": "memory", "output": "memory_after", "shape": [WIDTH, *GRID], "warmup": self.warmup}
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": folder.name,
            "created": "2026-11-28",
            "producer": {},
            "source": {},
            "kind": "training-free",
            "variants": {"fp32": {"precision": "fp32", "engines": ["onnxruntime", "openvino", "tensorrt"]}},
            "state": state if self.state else None,
            "distant": ["surroundings"],
            "references": 1,
            "gap": 1,
            "preprocess": {"colour_order": "RGB", "size": SIZE, "resize": "stretch", "mean": [0.5], "std": [1.0]},
            "dense": {"output": "scene", "recipe": "hand-made"},
            "cut": {"output": "patches", "level": 0, "threshold": 0.5},
            "tokenizer": file("tokenizer.json"),
            "vocabulary": {"entries": [["road"], ["sky"]], "templates": ["{}"], "embed_dim": WIDTH},
            "vocabulary_cache": file("vocabulary.safetensors"),
            "parity": file("parity.safetensors"),
        }
        content["variants"]["fp32"]["graphs"] = infos
        (folder / MANIFEST).write_text(json.dumps(content | manifest))
        return folder

    def _step(self) -> onnx.ModelProto:
        grid = [WIDTH, *GRID]
        inputs, outputs = [("scene", grid)], [("blend", grid)]
        nodes, sums = [], ["scene"]
        if self.state:
            inputs.append(("memory", grid))
            outputs.append(("memory_after", grid))
            sums.append("memory")
            nodes += [
                helper.make_node("Mul", ["memory", "keep"], ["kept"]),
                helper.make_node("Add", ["kept", "scene"], ["memory_after"]),
            ]
        if self.distant:
            inputs.append(("surroundings", [WIDTH, 1, 1]))
            sums.append("surroundings")
        if len(sums) == 1:
            nodes.append(helper.make_node("Identity", sums, ["blend"]))
        else:
            nodes += [
                helper.make_node("Add", [sums[0] if k == 1 else f"sum{k}", sums[k]], ["blend" if k == len(sums) - 1
                else f"sum{k + 1}"])
                for k in range(1, len(sums))
            ]  # fmt: skip
        return _model(nodes, inputs, outputs, {"keep": np.float32(KEEP)} if self.state else {})


def _backbone() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["picture"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["channels", "white"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "grey"], ["centred"]),
        helper.make_node("AveragePool", ["centred"], ["blocks"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["blocks", "mix"], ["mixed"]),
        helper.make_node("Mul", ["mixed", "mixed"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axis1"], ["sums"], keepdims=1),
        helper.make_node("Add", ["sums", "epsilon"], ["safe"]),
        helper.make_node("Sqrt", ["safe"], ["length"]),
        helper.make_node("Div", ["mixed", "length"], ["unit"]),
        helper.make_node("Squeeze", ["unit", "axis0"], ["scene"]),
        helper.make_node("ReduceMean", ["scene", "axes12"], ["surroundings"], keepdims=1),
        helper.make_node("Reshape", ["scene", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["patches"], perm=[0, 2, 1]),
    ]
    constants = {
        "white": np.float32(255),
        "grey": np.float32(0.5),
        "mix": MIX[:, :, None, None],
        "epsilon": np.float32(1e-6),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "axes12": np.array([1, 2]),
        "flat": np.array([1, WIDTH, GRID[0] * GRID[1]]),
    }
    outputs = [("scene", [WIDTH, *GRID]), ("patches", [1, GRID[0] * GRID[1], WIDTH]), ("surroundings", [WIDTH, 1, 1])]
    return _model(nodes, [("picture", [1, *SIZE, 3], TensorProto.UINT8)], outputs, constants)


def _decoder(given: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Reshape", [given, "flat"], ["columns"]),
        helper.make_node("MatMul", ["queries", "columns"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["scores_flat"]),
        helper.make_node("Reshape", ["scores_flat", "map"], ["scores"]),
    ]
    constants = {
        "flat": np.array([WIDTH, GRID[0] * GRID[1]]),
        "map": np.array([-1, *GRID]),
        "scale": np.float32(SCALE),
    }
    inputs = [(given, [WIDTH, *GRID]), ("queries", ["rows", WIDTH])]
    return _model(nodes, inputs, [("scores", ["rows", *GRID])], constants)


def _text() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["vectors", "ids"], ["looked"]),
        helper.make_node("ReduceMean", ["looked", "axis1"], ["means"], keepdims=0),
        helper.make_node("ReduceL2", ["means", "axis1"], ["lengths"], keepdims=1),
        helper.make_node("Div", ["means", "lengths"], ["meaning"]),
    ]
    constants = {"vectors": VECTORS, "axis1": np.array([1])}
    inputs = [("ids", ["prompts", "length"], TensorProto.INT64)]
    return _model(nodes, inputs, [("meaning", ["prompts", WIDTH])], constants)


def _model(nodes: list, inputs: list, outputs: list, constants: dict[str, Any]) -> onnx.ModelProto:
    def value(name: str, shape: list, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "hand-made", [value(*i) for i in inputs], [value(*o) for o in outputs], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        "shape": [d.dim_param or d.dim_value for d in kind.shape.dim],
    }
