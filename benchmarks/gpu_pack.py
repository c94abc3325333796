"""Take the GPU measurements to a machine without internet: wheels in a folder, the large ones in parts.

    python benchmarks/gpu_pack.py --out .gpu                                        (here, where packages can be had)
    python .gpu/unpack.py && PYTHONPATH=.gpu/site python benchmarks/gpu.py --json gpu.json      (there, in the checkout)

The machine is expected to have PyTorch with CUDA, numpy, OpenCV, onnx and tokenizers. What it lacks of the rest goes
into the folder, without dependencies, for its version of Python. Wheels above ``--part-mb`` are cut into parts, so that
the folder can travel in several transfers; ``unpack.py`` joins them, checks their sha256 and unpacks everything into
``site`` beside itself. Nothing is installed into the system.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.errors import OV2VSSError

PACKAGES = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "av",
    "loky",
    "platformdirs",
    "lightning-fabric",
    "open_clip_torch",
    "ftfy",
    "wcwidth",
    "timm",
    "onnxconverter-common",
)
"""What the scripts import beside the packages above."""
GPU_PACKAGES = ("onnxruntime-gpu", "flatbuffers")
TAGS = (*(f"manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 24, 17)), "manylinux2014_x86_64")
UNPACK = '''"""Join the parts, check them, and unpack every wheel into ``site`` beside this file."""
import hashlib, json, pathlib, zipfile

here = pathlib.Path(__file__).resolve().parent
for name, entry in json.loads((here / "wheels.json").read_text()).items():
    data = b"".join((here / part).read_bytes() for part in entry["parts"])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise SystemExit(f"{name} did not arrive whole")
    joined = here / "joined.whl"
    joined.write_bytes(data)
    with zipfile.ZipFile(joined) as wheel:
        wheel.extractall(here / "site")
    joined.unlink()
print(here / "site")
'''


def download(packages: tuple[str, ...], python: str, folder: Path) -> None:
    """Wheels for Linux on x86-64, of every package alone."""
    platforms = [word for tag in TAGS for word in ("--platform", tag)]
    for package in packages:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        command += ["--implementation", "cp", "--python-version", python, *platforms, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OV2VSSError(
                f"{package} cannot be had for Python {python} ({reason})", "check the network, or --python"
            )


def pack(wheels: list[Path], out: Path, part_bytes: int) -> dict[str, dict[str, object]]:
    """Write every wheel into ``out``, in parts of at most ``part_bytes``, and say what was written."""
    listed: dict[str, dict[str, object]] = {}
    for wheel in wheels:
        data, parts = wheel.read_bytes(), []
        for number, start in enumerate(range(0, len(data), part_bytes)):
            part = f"{wheel.name}.{number:02d}"
            (out / part).write_bytes(data[start : start + part_bytes])
            parts.append(part)
        listed[wheel.name] = {"sha256": hashlib.sha256(data).hexdigest(), "parts": parts}
    return listed


@click.command(context_settings=CONTEXT)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to make.")
@click.option("--python", default="3.12", show_default=True, help="Version of Python there.")
@click.option("--part-mb", default=48, show_default=True, type=click.IntRange(1), help="Largest file.")
@click.option("--no-onnxruntime-gpu", is_flag=True, help="Leave it out (256 MB).")
@program
def main(out: Path, python: str, part_mb: int, no_onnxruntime_gpu: bool) -> None:
    """Collect what benchmarks/gpu.py needs on a machine without internet."""
    if out.exists() and any(out.iterdir()):
        raise OV2VSSError(f"{out} is not empty", "give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        download(PACKAGES + (() if no_onnxruntime_gpu else GPU_PACKAGES), python, Path(folder))
        listed = pack(sorted(Path(folder).glob("*.whl")), out, part_mb * 2**20)
    (out / "wheels.json").write_text(json.dumps(listed, indent=1) + "\n")
    (out / "unpack.py").write_text(UNPACK)
    total = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{len(listed)} wheels, {total / 2**20:.0f} MiB in {out}; there: python {out.name}/unpack.py")


if __name__ == "__main__":
    main()
