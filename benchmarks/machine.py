"""What figures are measured on: for the records and reports of the scripts beside it."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def processor() -> str:
    """Number and model of the processors."""
    info, names = Path("/proc/cpuinfo"), []
    if info.is_file():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def revision() -> str:
    """Short git revision of this checkout, or ``unknown``."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
