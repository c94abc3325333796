"""ONNX Runtime and its providers: whether they are there and start, and what is said of graphs that do not load."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from ov2vss_runtime.engines.cuda import gpu_capability
from ov2vss_runtime.engines.plans import axis_sizes
from ov2vss_runtime.errors import BackendError, BundleError

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
LABEL_MAP = Path(__file__).with_name("label_map.onnx")
"""Made by ``ov2vss_export.label_graph``."""
OWN_GRAPHS = {"label_map": LABEL_MAP, "propagation": LABEL_MAP.with_name("propagation.onnx")}
"""Graphs that belong to the runtime and to no bundle; the second is made by ``ov2vss_export.propagation_graph``."""


def import_onnxruntime() -> Any:
    """onnxruntime, or an error with the commands that install it."""
    try:
        import onnxruntime
    except ImportError:
        raise BackendError(
            "onnxruntime is not installed",
            "run: pip install 'ov2vss[cpu]' (or 'ov2vss[gpu]' for NVIDIA GPUs; not both)",
        ) from None
    return onnxruntime


def require_provider(provider: str) -> Any:
    """onnxruntime with a provider of :data:`PROVIDERS` built in, or an error with the commands that install it."""
    ort = import_onnxruntime()
    missing = [name for name in PROVIDERS[provider] if name not in ort.get_available_providers()]
    if missing:
        raise BackendError(
            f"this onnxruntime has no {missing[0]}",
            "run: pip uninstall onnxruntime, then pip install 'ov2vss[gpu]' on a machine with an NVIDIA GPU",
        )
    if provider == "tensorrt":
        # The provider has no switch for TF32, which TensorRT computes float32 in by default: fp32 would miss its gates.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if provider != "cpu" and hasattr(ort, "preload_dlls"):
        # CUDA's and cuDNN's libraries come as packages of their own, where the system's loader does not look.
        ort.preload_dlls()
    return ort


def started_provider(provider: str, device: int = 0) -> str:
    """Load a provider without running anything on it: onnxruntime's version, or a BackendError that says why not."""
    ort = require_provider(provider)
    wanted, *rest = PROVIDERS[provider]
    if provider != "cpu":
        gpu_capability(device)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is told by the error below
            session = ort.InferenceSession(
                str(LABEL_MAP), options, providers=[(wanted, {"device_id": str(device)} if rest else {}), *rest]
            )
    except Exception as error:
        raise BackendError(f"{wanted} does not start ({first_line(error)})", GPU_LIBRARIES_CURE) from None
    if wanted not in session.get_providers():
        raise BackendError(f"{wanted} does not start", GPU_LIBRARIES_CURE)
    return str(ort.__version__)


GPU_LIBRARIES_CURE = (
    "install its libraries: pip install 'ov2vss[gpu]' (CUDA 13, driver 580 or newer), or use --backend onnxruntime"
)


def first_line(error: Exception) -> str:
    """The first line of a library's message, of a length that can be read."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def outside_error(path: object, backend: str) -> BackendError:
    """TensorRT's caches are keyed by the graph, and it reads weights outside of it by itself: from files unchecked."""
    return BackendError(f"{path} keeps weights in other files, which {backend} does not take", "use another --backend")


def load_error(path: object, version: str, error: Exception) -> BackendError | BundleError:
    """What to tell of a graph that could not be loaded, by its cause."""
    reason = first_line(error)
    if any(word in str(error).lower() for word in MEMORY_WORDS):
        return BackendError(
            f"{path} does not fit into memory ({reason})",
            "close other programs, or use fewer streams or a smaller bundle",
        )
    return BundleError(f"{path} cannot be loaded by onnxruntime {version} ({reason})", "export it again")


MEMORY_WORDS = ("bad allocation", "bad_alloc", "out of memory", "failed to allocate", "cuda_error_out_of_memory")


def profile_options(inputs: list[Any], graph: str) -> dict[str, str]:
    """The TensorRT provider's smallest, usual and largest shapes of a graph with dynamic axes; empty without any."""
    if all(isinstance(d, int) for t in inputs for d in t.shape):
        return {}
    found = {}
    for index, name in enumerate(("min", "opt", "max")):
        shapes = [f"{t.name}:" + "x".join(str(axis_sizes(graph, t, d)[index]) for d in t.shape) for t in inputs]
        found[f"trt_profile_{name}_shapes"] = ",".join(shapes)
    return found
