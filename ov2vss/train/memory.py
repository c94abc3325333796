"""Keep freed memory in the process: on a CPU, asking the system for it again costs a third of an iteration."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""


def keep_freed_memory() -> bool:
    """Make glibc serve large tensors from its heap and never shrink it; False where there is no glibc.

    Every iteration frees and allocates the same gigabytes. By default each large tensor is a mapping of its own, whose
    pages the kernel has to clear anew.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
