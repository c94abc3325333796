"""What figures are measured on: for the records and reports of the scripts beside it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ov2vss", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "numpy", "opencv-python-headless", "av")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def processor() -> str:
    """Number and model of the processors."""
    info, names = Path("/proc/cpuinfo"), []
    if info.is_file():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Which of the instruction sets that matter here the processor has."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.is_file() else set()
    return [flag for flag in FLAGS if flag in words]


def revision() -> str:
    """Short git revision of this checkout, with ``+`` if its code has changes, or ``unknown``."""

    def git(*words: str) -> str:
        command = ["git", *words]
        root = Path(__file__).resolve().parent.parent
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "benchmarks", "export", "ov2vss", "runtime", "models")
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{'+' if changed else ''}"


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """How this script was called, without where its figures go."""
    words, drop = ["python", f"benchmarks/{Path(sys.argv[0]).name}"], False
    for word in sys.argv[1:]:
        if not drop and word not in ("--json", "--plot"):
            words.append(shlex.quote(word))
        drop = word in ("--json", "--plot")
    return " ".join(words)


def machine() -> dict[str, object]:
    """What the figures were measured on, and how."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "processor": processor(),
        "instructions": instructions(),
        "affinity": affinity,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "revision": revision(),
        "command": command(),
        "date": time.strftime("%Y-%m-%d"),
    }
