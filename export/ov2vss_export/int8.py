"""int8 backbone graphs: static QDQ, calibrated on the user's own frames, sensitive layers left in float32.

Engines want different files. ONNX Runtime is fast with unsigned activations (U8S8); TensorRT takes symmetric signed
ones (S8S8) whose biases stay in float32; for OpenVINO NNCF quantizes, whose file keeps the worst frames nearer to
float32 there. Only the image towers are quantized: convolutions, and linear layers with constant weights. The step and
the decoder stay float32, they are small and sum over many tokens.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tqdm import tqdm

from ov2vss_export.half import module_of

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
    """Quantizes one float32 graph, any of its layers, for any engine; ranges are measured once.

    Args:
        model: the float32 backbone graph with the exporter's notes.
        frames: RGB uint8 ``[H, W, 3]``.
    """

    def __init__(self, model: onnx.ModelProto, frames: list[npt.NDArray[np.uint8]]) -> None:
        self.model, self.frames = model, frames
        self.layers = layers(model)
        self._followers = _followers(model)
        self._folder = tempfile.TemporaryDirectory(prefix="ov2vss-int8-")
        self._path = Path(self._folder.name) / "float32.onnx"
        self._path.write_bytes(model.SerializeToString())

    def quantize(self, engine: str, skip: Iterable[str] = (), only: str | None = None) -> onnx.ModelProto:
        """The graph with all layers quantized but ``skip``, or with ``only`` one."""
        chosen = [only] if only is not None else [name for name in self.layers if name not in set(skip)]
        if engine == "openvino":
            return self._with_nncf(chosen)
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
                calibration_cache_path=Path(self._folder.name) / f"ranges-{engine}.json",
                extra_options=dict(style.options),
            )
        return onnx.load(out)

    def _with_nncf(self, chosen: list[str]) -> onnx.ModelProto:
        """NNCF's post-training quantization of some layers."""
        model = fold_casts(self.model)
        left = [node.name for node in model.graph.node if node.op_type in KINDS and node.name not in set(chosen)]
        attention = any(node.op_type == "MatMul" and node.name in set(chosen) for node in model.graph.node)
        with _quiet():
            # Without this, importing NNCF reports its use to its makers over the network.
            os.environ["NNCF_CI"] = "1"
            import nncf

            quantized = nncf.quantize(
                model,
                nncf.Dataset(self.frames, lambda frame: {"frame": frame[None]}),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                model_type=nncf.ModelType.TRANSFORMER if attention else None,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(self.frames),
                ignored_scope=nncf.IgnoredScope(names=left),
            )
        used = {name for node in quantized.graph.node for name in node.input}
        for tensor in [t for t in quantized.graph.initializer if t.name not in used]:
            quantized.graph.initializer.remove(tensor)
        onnx.checker.check_model(quantized, full_check=True)
        return quantized

    def sensitivity(self, engine: str, frames: list[npt.NDArray[np.uint8]]) -> dict[str, float]:
        """Relative error of the graph's worst output when one layer alone is quantized; the worst layer first."""
        reference, errors = self._outputs(self.model, frames), {}
        for name in tqdm(self.layers, desc="sensitivity", unit="layer", disable=None, leave=False):
            found = self._outputs(self.quantize(engine, only=name), frames)
            errors[name] = max(
                float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-12))
                for one, other in zip(reference, found, strict=True)
                for a, b in zip(one, other, strict=True)
            )
        return dict(sorted(errors.items(), key=lambda item: -item[1]))

    def search(
        self, engine: str, accept: Callable[[onnx.ModelProto], bool], frames: list[npt.NDArray[np.uint8]]
    ) -> tuple[onnx.ModelProto, list[str]]:
        """The graph with as few layers left in float32 as ``accept`` allows (0, 1, 2, 4, ... of the most sensitive)."""
        model = self.quantize(engine)
        if accept(model):
            return model, []
        ranked = list(self.sensitivity(engine, frames))
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


def fold_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which casts of constants are constants, which NNCF wants."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    constants = {t.name: t for t in copy.graph.initializer}
    for node in [n for n in copy.graph.node if n.op_type == "Cast" and n.input[0] in constants]:
        kind = next(a.i for a in node.attribute if a.name == "to")
        values = onnx.numpy_helper.to_array(constants[node.input[0]])
        values = values.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        copy.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        copy.graph.node.remove(node)
    return copy


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
    """onnxruntime and NNCF advise on the root logger, on theirs, and with bars of their own."""
    loggers = [logging.getLogger(name) for name in ("", "nncf", "torch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
