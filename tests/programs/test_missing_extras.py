"""The programs in an environment without PyTorch or ONNX: one line that names the command."""

import re
import subprocess
import sys

import pytest

LEFT_OUT = ("torch", "torchvision", "timm", "open_clip", "onnx", "onnxscript")


@pytest.mark.parametrize(
    ("module", "args", "missing"),
    [
        ("ov2vss.train.cli", ["--out", "run"], "torch"),
        ("ov2vss.evaluate.cli", ["--data", "shapes", "--ckpt", "CKPT"], "torch"),
        ("ov2vss_export.cli", ["--ckpt", "CKPT", "--out", "b"], "(torch|onnx)"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command(
    module: str, args: list[str], missing: str, trained, tmp_path
) -> None:
    args = [str(trained.folder) if arg == "CKPT" else arg for arg in args]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({LEFT_OUT!r}))\nsys.argv = ['program'] + {args!r}\n"
        f"from {module} import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.match(
        f"error: {missing} is not installed; run: pip install 'ov2vss\\[(train|export)\\]'",
        done.stderr.splitlines()[-1],
    )
    assert not list(tmp_path.iterdir())
