"""Where the programs begin: what they import takes seconds, and Ctrl-C in these ends them as it does later."""

from __future__ import annotations

import os
import signal
import threading
from importlib import import_module

INTERRUPTED = 130


def start(module: str) -> None:
    """Import a module and call its ``main``."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    import_module(module).main()


def leave(_signal: int, _frame: object) -> None:
    """End at once: nothing has been opened yet, and an exception amid imports is not always seen as what it is."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def loaded() -> None:
    """The work begins: from now on Ctrl-C is an exception."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run() -> None:
    """``ov2vss-run``."""
    start("ov2vss_runtime.cli")


def batch() -> None:
    """``ov2vss-batch``."""
    start("ov2vss_runtime.batch.cli")
