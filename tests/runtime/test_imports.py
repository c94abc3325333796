"""The runtime is at the bottom: it must not need what training needs."""

import subprocess
import sys


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def test_importing_the_runtime_imports_neither_torch_nor_an_engine() -> None:
    code = (
        "import sys, pkgutil, importlib, ov2vss_runtime\n"
        "for m in pkgutil.walk_packages(ov2vss_runtime.__path__, 'ov2vss_runtime.'): importlib.import_module(m.name)\n"
        "bad = [m for m in ('torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'ov2vss') if m in sys.modules]\n"
        "assert not bad, bad"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_a_missing_engine_is_answered_with_the_cure(bundle) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from ov2vss_runtime.cli import main\n"
        f"main(['video.mp4', '--bundle', {str(bundle)!r}])"
    )
    done = python(code)
    assert done.returncode == 1
    assert "pip install 'ov2vss[cpu]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_bundle_is_verified_without_torch_and_onnx(bundle) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from ov2vss_export.cli import main\n"
        f"main(['--verify-only', {str(bundle)!r}, '--precision', 'fp32'])"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "pass  roll-out as exported" in done.stdout
