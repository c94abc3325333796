"""What the four programs share: errors as one line, exit codes, ``--debug``, ``--version``."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import Any

import click

from ov2vss_runtime.errors import OV2VSSError

FAILED, INTERRUPTED = 1, 130


def program(function: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--debug``, ``--version`` and ``-h``; a user's error becomes one line on stderr and exit code 1.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.version_option(version("ov2vss"), "--version", prog_name="ov2vss")
    @wraps(function)
    def wrapper(*args: Any, debug: bool, **kwargs: Any) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("ov2vss").setLevel(logging.DEBUG if debug else logging.INFO)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)  # a service manager's stop is a Ctrl-C: finish what was done
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except (OV2VSSError, OSError) as error:
            if debug:
                traceback.print_exc()
            click.echo(f"error: {_one_line(error)}", err=True)
            sys.exit(FAILED)

    return wrapper


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return f"{text}; check the path, its permissions and the free space"
    return " ".join(str(error).split())


def print_json(data: dict[str, Any]) -> None:
    """One JSON object as the last line of stdout."""
    click.echo(json.dumps(data, allow_nan=False, default=str))


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
