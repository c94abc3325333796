"""The extras for NVIDIA GPUs: what they name fits together, and what they install can be loaded but for the driver."""

import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest
from packaging.requirements import Requirement

from ov2vss_runtime.engines import onnxruntime as engine
from ov2vss_runtime.engines import providers
from ov2vss_runtime.engines.backends import BACKENDS

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
DRIVER = "libcuda.so.1"
"""Comes with the driver, never with a package."""
NO_CUDA_KERNEL = {"ReduceMax": 20, "ReduceMin": 20, "Pad": 19}
"""Forms, by the opset that they came with, that ONNX Runtime 1.31 has no CUDA kernel for: it takes their inputs to the
processor and the results back."""


def requirement(extra: str, name: str) -> Requirement:
    return next(r for r in map(Requirement, EXTRAS[extra]) if r.name == name)


def test_the_tensorrt_provider_gets_tensorrt_10_and_the_engine_tensorrt_11() -> None:
    """The provider is linked with libnvinfer.so.10."""
    provider, own = requirement("gpu-tensorrt", "tensorrt-cu13"), requirement("tensorrt", "tensorrt-cu13")
    assert "10.16.1.11" in provider.specifier
    assert "11.4.0.106" not in provider.specifier
    assert "11.4.0.106" in own.specifier
    assert "10.16.1.11" not in own.specifier


@pytest.mark.parametrize("extra", ["gpu", "gpu-tensorrt"])
def test_onnxruntime_brings_its_cuda_libraries(extra: str) -> None:
    assert requirement(extra, "onnxruntime-gpu").extras == {"cuda", "cudnn"}


def test_no_exported_node_is_one_that_cuda_leaves_to_the_processor(bundle: Path) -> None:
    graphs = {path.name: onnx.load(path) for path in (*engine.OWN_GRAPHS.values(), *bundle.glob("*.onnx"))}
    assert len(graphs) > 9
    found = []
    for name, graph in graphs.items():
        opset = next(o.version for o in graph.opset_import if not o.domain)
        for node in graph.graph.node:
            since = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
            if since >= NO_CUDA_KERNEL.get(node.op_type, 1000):
                found.append(f"{name}: {node.op_type}-{since}")
    assert not found


def test_float32_is_not_computed_in_tf32_unless_asked(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    from ov2vss_runtime.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    for precision, wanted in (("fp32", "0"), ("tf32", "1")):
        found = engine.OrtEngine(opened, precision=precision, device=3)
        options = found._options("CUDAExecutionProvider", "decoder")
        assert options == {"device_id": "3", "use_tf32": wanted}
    assert "tf32" in BACKENDS["onnxruntime:cuda"].precisions
    assert "tf32" in BACKENDS["tensorrt"].precisions


def test_the_tensorrt_provider_is_given_strongly_typed_networks(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, tmp_path: Path
) -> None:
    """Its switches for fp16 and int8 make a network weakly typed, and norms that stand in float32 would run in fp16."""
    from types import SimpleNamespace

    from ov2vss_runtime.bundle.bundle import Bundle

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engine, "import_tensorrt", lambda library: SimpleNamespace(__version__="10"))
    monkeypatch.setattr(engine, "gpu_capability", lambda device: "SM90")
    options = engine.OrtEngine(Bundle.open(bundle), "fp16")._options("TensorrtExecutionProvider", "decoder")
    assert not [name for name in options if name.endswith(("fp16_enable", "int8_enable", "bf16_enable"))]


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("Failed to allocate memory for requested buffer of size 4096", "BackendError", "does not fit into memory"),
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", "BackendError", "does not fit into memory"),
        ("Load model failed: Protobuf parsing failed.", "BundleError", "export it again"),
    ],
)
def test_a_graph_that_does_not_load_is_told_with_its_cause(message: str, kind: str, words: str) -> None:
    error = engine.load_error("decoder.onnx", "1.31", RuntimeError(message))
    assert type(error).__name__ == kind
    assert words in str(error)


def sonames(folder: Path) -> dict[str, Path]:
    """Shared libraries below a folder by the names that they are asked for."""
    return {path.name: path for path in folder.rglob("*.so*") if path.is_file()}


def missing(start: list[Path], inside: dict[str, Path]) -> set[str]:
    """What the libraries, and those that they need in turn, ask for and neither the folder nor the system has."""
    from elftools.elf.elffile import ELFFile

    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    todo, seen, lacking = list(start), set(), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        with path.open("rb") as stream:
            dynamic = ELFFile(stream).get_section_by_name(".dynamic")
            needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
        for name in needed:
            if name in inside:
                todo.append(inside[name])
            elif f"\t{name} " not in known:
                lacking.add(name)
    return lacking


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "library"),
    [
        ("gpu", "libonnxruntime_providers_cuda.so"),
        ("gpu-tensorrt", "libonnxruntime_providers_tensorrt.so"),
        ("tensorrt", "libnvinfer.so.11"),
        ("tensorrt-rtx", "libtensorrt_rtx.so*"),
    ],
)
def test_what_an_extra_installs_can_be_loaded_but_for_the_driver(extra: str, library: str, tmp_path: Path) -> None:
    """Several GB of packages: run by hand, with date and result in docs/results.md."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path), *EXTRAS[extra]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if "wheel_stub.error.InstallFailedError" in done.stderr:
        pytest.skip("TensorRT's libraries come from NVIDIA's own package index, which is not reached from here")
    assert done.returncode == 0, done.stderr
    inside = sonames(tmp_path)
    start = sorted(tmp_path.rglob(library))
    assert start, f"{library} is not there"
    assert missing(start, inside) <= {DRIVER}


def test_a_device_that_a_processor_does_not_have_is_refused(bundle: Path) -> None:
    from ov2vss_runtime.bundle.bundle import Bundle
    from ov2vss_runtime.engines.backends import load_engine
    from ov2vss_runtime.errors import BackendError

    with pytest.raises(BackendError, match="has no device 1"):
        load_engine(Bundle.open(bundle), "onnxruntime", device=1)


def test_a_provider_that_is_listed_and_does_not_load_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled in says yes where cuDNN is not installed: onnxruntime then falls back with a warning."""
    import onnxruntime

    from ov2vss_runtime.engines.backends import status

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(providers, "gpu_capability", lambda device: "SM90")
    assert status("onnxruntime:cuda").startswith("no: CUDAExecutionProvider does not start")
