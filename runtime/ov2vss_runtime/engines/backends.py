"""Engines by name. To add one: a subclass of BundleEngine, and an entry in ``BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.engines.plans import Library, import_tensorrt, local_capability
from ov2vss_runtime.errors import BackendError


@dataclass(frozen=True)
class Backend:
    """How a backend is loaded.

    Attributes:
        family: which variants of a bundle it takes.
        precisions: what it can compute; ``bf16`` takes the fp32 variant.
        load: ``(bundle, variant, threads, precision)`` -> engine.
        probe: the version that would run here, or a BackendError.
    """

    family: str
    precisions: tuple[str, ...]
    load: Callable[[Bundle, str, int | None, str], BundleEngine]
    probe: Callable[[], str]


def _onnxruntime(provider: str) -> Callable[[Bundle, str, int | None, str], BundleEngine]:
    def load(bundle: Bundle, variant: str, threads: int | None, precision: str) -> BundleEngine:
        from ov2vss_runtime.engines.onnxruntime import OrtEngine

        return OrtEngine(bundle, variant, threads, provider)

    return load


def _tensorrt(library: Library) -> Callable[[Bundle, str, int | None, str], BundleEngine]:
    def load(bundle: Bundle, variant: str, threads: int | None, precision: str) -> BundleEngine:
        from ov2vss_runtime.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(bundle, variant, threads, library)

    return load


def _openvino(bundle: Bundle, variant: str, threads: int | None, precision: str) -> BundleEngine:
    from ov2vss_runtime.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(bundle, variant, threads, precision)


def _probe_onnxruntime(provider: str) -> Callable[[], str]:
    def probe() -> str:
        from ov2vss_runtime.engines.onnxruntime import require_provider

        version = require_provider(provider).__version__
        if provider != "cpu":
            local_capability()
        return f"onnxruntime {version}"

    return probe


def _probe_openvino() -> str:
    from ov2vss_runtime.engines.openvino import import_openvino

    return f"openvino {import_openvino().__version__.split('-')[0]}"


def _probe_tensorrt(library: Library) -> Callable[[], str]:
    def probe() -> str:
        version = import_tensorrt(library).__version__
        return f"{library} {version} for {local_capability()}"

    return probe


STORED = ("fp32", "fp16", "int8")
BACKENDS = {
    "onnxruntime": Backend("onnxruntime", STORED, _onnxruntime("cpu"), _probe_onnxruntime("cpu")),
    "onnxruntime:cpu": Backend("onnxruntime", STORED, _onnxruntime("cpu"), _probe_onnxruntime("cpu")),
    "onnxruntime:cuda": Backend("onnxruntime", ("fp32", "fp16"), _onnxruntime("cuda"), _probe_onnxruntime("cuda")),
    "onnxruntime:tensorrt": Backend("tensorrt", STORED, _onnxruntime("tensorrt"), _probe_onnxruntime("tensorrt")),
    "openvino": Backend("openvino", ("fp32", "bf16", "int8"), _openvino, _probe_openvino),
    "tensorrt": Backend("tensorrt", STORED, _tensorrt("tensorrt"), _probe_tensorrt("tensorrt")),
    "tensorrt-rtx": Backend("tensorrt", STORED, _tensorrt("tensorrt-rtx"), _probe_tensorrt("tensorrt-rtx")),
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


def status(backend: str) -> str:
    """Whether a backend would run here, with its version and precisions, or why not. Nothing is loaded."""
    try:
        version = BACKENDS[backend].probe()
    except BackendError as error:
        return f"no: {error}"
    return f"yes: {version}; {', '.join(BACKENDS[backend].precisions)}"
