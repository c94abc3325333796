"""int8 backbone graphs: static QDQ, calibrated on the user's own frames, sensitive layers left in float32.

Engines want different files. ONNX Runtime and OpenVINO are fast with unsigned activations (U8S8); TensorRT takes
symmetric signed ones (S8S8) whose biases stay in float32. Only the image towers are quantized: convolutions, and linear
layers with constant weights. The step and the decoder stay float32, they are small and sum over many tokens.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ov2vss_export.fp16 import module_of
from ov2vss_runtime.progress import Progress

TOWERS = ("model.backbone", "model.image_encoder")
KINDS = ("Conv", "MatMul", "Gemm")
ACTIVATIONS = ("Clip", "Relu")
OPERATORS = [*KINDS, *ACTIVATIONS, "Add"]


@dataclass(frozen=True)
class Style:
    """How an engine wants int8."""

    activations: QuantType
    options: dict[str, Any]


STYLES = {
    "onnxruntime": Style(QuantType.QUInt8, {"WeightSymmetric": True}),
    "tensorrt": Style(QuantType.QInt8, {"WeightSymmetric": True, "ActivationSymmetric": True, "QuantizeBias": False}),
}


class _Frames(CalibrationDataReader):
    def __init__(self, feeds: Iterable[dict[str, npt.NDArray[Any]]]) -> None:
        self.feeds: Iterator[dict[str, npt.NDArray[Any]]] = iter(feeds)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self.feeds, None)


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of the layers of the image towers that have weights, in order. The exporter's notes must still be there."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in KINDS and node.input[1] in constants and module_of(node).startswith(TOWERS)
    ]


class Quantizer:
    """Quantizes one float32 graph, any of its layers, for any engine; ranges are measured once for all of them.

    Args:
        model: the float32 backbone graph with the exporter's notes.
        frames: RGB uint8 ``[H, W, 3]``.
    """

    def __init__(self, model: onnx.ModelProto, frames: list[npt.NDArray[np.uint8]]) -> None:
        self.model, self.frames = model, frames
        self.layers = layers(model)
        self._followers = _followers(model)
        self._ranked: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ov2vss-int8-")
        self._path = Path(self._folder.name) / "float32.onnx"
        self._path.write_bytes(model.SerializeToString())

    def quantize(self, engine: str, skip: Iterable[str] = (), only: str | None = None) -> onnx.ModelProto:
        """The graph with all layers quantized but ``skip``, or with ``only`` one."""
        chosen = [only] if only is not None else [name for name in self.layers if name not in set(skip)]
        nodes = [*chosen, *(f for name in chosen for f in self._followers.get(name, ()))]
        if only is None:
            nodes += _additions(self.model, nodes)
        style, out = STYLES[engine], Path(self._folder.name) / "int8.onnx"
        with _quiet():
            quantize_static(
                self._path,
                out,
                _Frames({"frame": f[None]} for f in self.frames),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                activation_type=style.activations,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
                calibration_cache_path=Path(self._folder.name) / "ranges.json",
                extra_options=dict(style.options),
            )
        return onnx.load(out)

    def sensitivity(self, engine: str, frames: list[npt.NDArray[np.uint8]]) -> dict[str, float]:
        """Relative error of the graph's worst output when one layer alone is quantized; the worst layer first."""
        reference, errors = self._outputs(self.model, frames), dict[str, float]()
        with Progress(len(self.layers), "sensitivity", "layer") as bar:
            for name in self.layers:
                found = self._outputs(self.quantize(engine, only=name), frames)
                errors[name] = max(
                    float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-12)
                    for one, other in zip(reference, found, strict=True)
                    for a, b in zip(one, other, strict=True)
                )
                bar.update()
        return dict(sorted(errors.items(), key=lambda item: -item[1]))

    def search(
        self, engine: str, accept: Callable[[onnx.ModelProto], bool], frames: list[npt.NDArray[np.uint8]]
    ) -> tuple[onnx.ModelProto, list[str]]:
        """The graph with as few layers left in float32 as ``accept`` allows (0, 1, 2, 4, ... of the most sensitive).

        Layers are ranked once, for the engine that first asks: which of them are sensitive lies in the network, and
        ``accept`` looks at what comes out for each engine.
        """
        model = self.quantize(engine)
        if accept(model):
            return model, []
        ranked = self._ranked = self._ranked or list(self.sensitivity(engine, frames))
        count = 1
        while count < len(ranked):
            model = self.quantize(engine, ranked[:count])
            if accept(model):
                return model, ranked[:count]
            count *= 2
        return model, ranked[: count // 2]

    @staticmethod
    def _outputs(model: onnx.ModelProto, frames: list[npt.NDArray[np.uint8]]) -> list[list[npt.NDArray[np.float32]]]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [session.run(None, {"frame": frame[None]}) for frame in frames]


def _followers(model: onnx.ModelProto) -> dict[str, list[str]]:
    """The activation that alone uses a layer's output, by layer."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = {}
    for node in model.graph.node:
        if node.op_type in KINDS:
            after = users.get(node.output[0], [])
            if len(after) == 1 and after[0].op_type in ACTIVATIONS:
                found[node.name] = [after[0].name]
    return found


def _additions(model: onnx.ModelProto, quantized: list[str]) -> list[str]:
    """Residual sums between quantized layers, so that a block stays in int8 from end to end."""
    made = {o for node in model.graph.node if node.name in set(quantized) for o in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type == "Add" and set(node.input) <= made:
            found.append(node.name)
            made |= set(node.output)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime advises on the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
