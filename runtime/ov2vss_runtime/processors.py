"""How many processor threads this process should use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_threads() -> int:
    """Physical cores that this process may use: by affinity, hyper-threads counted once, and by the cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = physical_cores(os.sched_getaffinity(0), TOPOLOGY)
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, quota(QUOTA) or count))


def physical_cores(processors: Iterable[int], topology: Path) -> int:
    """Number of cores behind some logical processors; each is a core of its own where the system does not say."""
    cores = set()
    for number in processors:
        try:
            cores.add((topology / f"cpu{number}" / "topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(number))
    return len(cores)


def quota(file: Path) -> int | None:
    """Whole processors of a cgroup's quota, at least one; None without a limit."""
    try:
        limit, period = file.read_text().split()
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return None
