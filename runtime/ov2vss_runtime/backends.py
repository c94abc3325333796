"""Engines by name. To add one: a subclass of BundleEngine, and an entry in ``BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ov2vss_runtime.bundle import Bundle
from ov2vss_runtime.bundle_engine import BundleEngine
from ov2vss_runtime.errors import BackendError


@dataclass(frozen=True)
class Backend:
    """How a backend is loaded.

    Attributes:
        family: which variants of a bundle it takes.
        precisions: what it can compute; ``bf16`` takes the fp32 variant.
        load: ``(bundle, variant, threads, precision)`` -> engine.
    """

    family: str
    precisions: tuple[str, ...]
    load: Callable[[Bundle, str, int | None, str], BundleEngine]


def _onnxruntime(provider: str) -> Callable[[Bundle, str, int | None, str], BundleEngine]:
    def load(bundle: Bundle, variant: str, threads: int | None, precision: str) -> BundleEngine:
        from ov2vss_runtime.ort_engine import OrtEngine

        return OrtEngine(bundle, variant, threads, provider)

    return load


def _openvino(bundle: Bundle, variant: str, threads: int | None, precision: str) -> BundleEngine:
    from ov2vss_runtime.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(bundle, variant, threads, precision)


STORED = ("fp32", "fp16", "int8")
BACKENDS = {
    "onnxruntime": Backend("onnxruntime", STORED, _onnxruntime("cpu")),
    "onnxruntime:cpu": Backend("onnxruntime", STORED, _onnxruntime("cpu")),
    "onnxruntime:cuda": Backend("onnxruntime", ("fp32", "fp16"), _onnxruntime("cuda")),
    "onnxruntime:tensorrt": Backend("tensorrt", STORED, _onnxruntime("tensorrt")),
    "openvino": Backend("openvino", ("fp32", "bf16", "int8"), _openvino),
}


def load_engine(
    bundle: Bundle, backend: str = "onnxruntime", precision: str = "fp32", threads: int | None = None
) -> BundleEngine:
    """The engine that runs a bundle.

    Raises:
        BackendError: unknown backend, precision that it does not have, missing package or hardware.
        BundleError: the bundle has no variant for it.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is not offered", f"choose one of: {', '.join(BACKENDS)}")
    chosen = BACKENDS[backend]
    if precision not in chosen.precisions:
        raise BackendError(
            f"{backend} does not compute in {precision!r}", f"choose one of: {', '.join(chosen.precisions)}"
        )
    variant = bundle.variant("fp32" if precision == "bf16" else precision, chosen.family)
    return chosen.load(bundle, variant, threads, precision)
