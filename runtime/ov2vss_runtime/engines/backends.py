"""Engines by name. To add one: a subclass of BundleEngine, and an entry in ``BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ov2vss_runtime.bundle.bundle import COMPUTED, Bundle
from ov2vss_runtime.bundle.made import with_variant
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.engines.cuda import gpu_capability
from ov2vss_runtime.engines.plans import Library, import_tensorrt, supported_capabilities
from ov2vss_runtime.errors import BackendError

Load = Callable[[Bundle, str, int | None, str, int], BundleEngine]


@dataclass(frozen=True)
class Backend:
    """How a backend is loaded.

    Attributes:
        family: which variants of a bundle it takes.
        precisions: what it can compute; ``bf16`` and ``tf32`` take the fp32 variant.
        load: ``(bundle, variant, threads, precision, device)`` -> engine.
        probe: ``device`` -> what would run there, after trying to load it; a BackendError if it does not.
        devices: whether it runs on a device with a number.
    """

    family: str
    precisions: tuple[str, ...]
    load: Load
    probe: Callable[[int], str]
    devices: bool = True


def _onnxruntime(provider: str) -> Load:
    def load(bundle: Bundle, variant: str, threads: int | None, precision: str, device: int) -> BundleEngine:
        from ov2vss_runtime.engines.onnxruntime import OrtEngine

        return OrtEngine(bundle, variant, threads, provider, precision=precision, device=device)

    return load


def _tensorrt(library: Library) -> Load:
    def load(bundle: Bundle, variant: str, threads: int | None, precision: str, device: int) -> BundleEngine:
        from ov2vss_runtime.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(bundle, variant, threads, library, precision, device)

    return load


def _openvino(bundle: Bundle, variant: str, threads: int | None, precision: str, device: int) -> BundleEngine:
    from ov2vss_runtime.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(bundle, variant, threads, precision)


def _probe_onnxruntime(provider: str) -> Callable[[int], str]:
    def probe(device: int) -> str:
        from ov2vss_runtime.engines.providers import started_provider

        return f"onnxruntime {started_provider(provider, device)}"

    return probe


def _probe_openvino(device: int) -> str:
    from ov2vss_runtime.engines.openvino import import_openvino

    return f"openvino {import_openvino().__version__.split('-')[0]}"


def _probe_tensorrt(library: Library) -> Callable[[int], str]:
    def probe(device: int) -> str:
        version, compute = import_tensorrt(library).__version__, gpu_capability(device)
        if library == "tensorrt-rtx" and compute not in supported_capabilities():
            raise BackendError(
                f"tensorrt-rtx {version} does not run on {compute}",
                f"it is for {', '.join(supported_capabilities())}; use --backend tensorrt or onnxruntime:cuda",
            )
        return f"{library} {version} for {compute}"

    return probe


STORED = ("fp32", "fp16", "int8")
ON_A_GPU = ("fp32", "tf32", "fp16", "int8")
BACKENDS = {
    "onnxruntime": Backend("onnxruntime", STORED, _onnxruntime("cpu"), _probe_onnxruntime("cpu"), False),
    "onnxruntime:cpu": Backend("onnxruntime", STORED, _onnxruntime("cpu"), _probe_onnxruntime("cpu"), False),
    "onnxruntime:cuda": Backend(
        "onnxruntime", ("fp32", "tf32", "fp16"), _onnxruntime("cuda"), _probe_onnxruntime("cuda")
    ),
    "onnxruntime:tensorrt": Backend("tensorrt", STORED, _onnxruntime("tensorrt"), _probe_onnxruntime("tensorrt")),
    "openvino": Backend("openvino", ("fp32", "bf16", "int8"), _openvino, _probe_openvino, False),
    "tensorrt": Backend("tensorrt", ON_A_GPU, _tensorrt("tensorrt"), _probe_tensorrt("tensorrt")),
    "tensorrt-rtx": Backend("tensorrt", ON_A_GPU, _tensorrt("tensorrt-rtx"), _probe_tensorrt("tensorrt-rtx")),
}


def load_engine(
    bundle: Bundle, backend: str = "onnxruntime", precision: str = "fp32", threads: int | None = None, device: int = 0
) -> BundleEngine:
    """The engine that runs a bundle.

    Args:
        device: number of the GPU, among those that ``CUDA_VISIBLE_DEVICES`` shows.

    Raises:
        BackendError: unknown backend, precision or device that it does not have, missing package or hardware.
        BundleError: the bundle has no variant for it.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is not offered", f"choose one of: {', '.join(BACKENDS)}", usage=True)
    chosen = BACKENDS[backend]
    if precision not in chosen.precisions:
        raise BackendError(
            f"{backend} does not compute in {precision!r}", f"choose one of: {', '.join(chosen.precisions)}", usage=True
        )
    if device and not chosen.devices:
        raise BackendError(f"{backend} has no device {device}: it runs on the processor", "leave --device out")
    stored = "fp32" if precision in COMPUTED else precision
    bundle = with_variant(bundle, stored, chosen.family)
    variant = bundle.variant(stored, chosen.family)
    return chosen.load(bundle, variant, threads, precision, device)


def status(backend: str, device: int = 0) -> str:
    """Whether a backend runs here, with its version and precisions, or why not: it is loaded to find out, since
    what was compiled in says yes where a library is missing."""
    try:
        version = BACKENDS[backend].probe(device)
    except BackendError as error:
        return f"no: {error}"
    return f"yes: {version}; {', '.join(BACKENDS[backend].precisions)}"
