"""How many processor threads this process should use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


def available_threads() -> int:
    """Physical cores that this process may use, by affinity and by the quota of its cgroup (v1 or v2).

    loky knows affinity, quotas and other systems; under an affinity it counts hyper-threads, which are left out here.
    """
    import loky

    if hasattr(os, "sched_getaffinity"):
        return max(1, min(physical_cores(os.sched_getaffinity(0), TOPOLOGY), loky.cpu_count()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a system does not tell its cores
        return max(1, loky.cpu_count(only_physical_cores=True))


def physical_cores(processors: Iterable[int], topology: Path) -> int:
    """Number of cores behind some logical processors; each is a core of its own where the system does not say."""
    cores = set()
    for number in processors:
        try:
            cores.add((topology / f"cpu{number}" / "topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(number))
    return len(cores)
