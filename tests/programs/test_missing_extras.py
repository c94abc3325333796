"""The programs in an environment without PyTorch or ONNX: one line that names the command."""

import subprocess
import sys

import pytest

LEFT_OUT = ("torch", "torchvision", "timm", "open_clip", "onnx", "onnxscript")


@pytest.mark.parametrize(
    ("module", "args", "missing"),
    [
        ("ov2vss.train.cli", ["--out", "run"], "torch"),
        ("ov2vss.evaluate.cli", ["--data", "shapes", "--ckpt", "run"], "torch"),
        ("ov2vss_export.cli", ["--ckpt", "run", "--out", "b"], "onnx"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command(module: str, args: list[str], missing: str, tmp_path) -> None:
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({LEFT_OUT!r}))\nsys.argv = ['program'] + {args!r}\n"
        f"from {module} import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: {missing} is not installed; run: pip install 'ov2vss[")
    assert not list(tmp_path.iterdir())
