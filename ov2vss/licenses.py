"""The licence of weights goes with the weights: from what a training starts from, through its run, into the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ov2vss.errors import OV2VSSError
from ov2vss_runtime.atomic_files import write_text

LICENSE = "LICENSE-WEIGHTS"
"""Name of the file in run folders and bundles."""
STEP = re.compile(r"step-\d{8}$")
HEADING = "Licence of what these weights were trained from: {}\n\n"


def license_beside(path: Path) -> str | None:
    """Text of the licence that lies beside a weights file, or in a run or one of its checkpoints; None without one."""
    folder = path if path.is_dir() else path.parent
    folders = [folder, folder.resolve().parent] if STEP.fullmatch(folder.resolve().name) else [folder]
    for place in folders:
        file = place / LICENSE
        if file.is_file():
            return _read(file)
    return None


def carry_license(run: Path, origins: Iterable[Path]) -> list[Path]:
    """Write the licences of a training's origins into its run folder; those that already stand there are not repeated.

    Returns:
        The origins whose licence was found.
    """
    file, found = run / LICENSE, []
    text = _read(file) if file.is_file() else ""
    for origin in origins:
        own = license_beside(origin)
        if own is None:
            continue
        found.append(origin)
        if own.strip() not in text:
            text = f"{text.rstrip()}\n\n{HEADING.format(origin.name)}{own}" if text else own
    if found:
        write_text(file, text)
    return found


def license_for_export(checkpoint: Path, given: Path | None, replace: bool) -> str | None:
    """The text that goes into a bundle.

    Args:
        checkpoint: folder of the checkpoint.
        given: file of ``--license``; None: the checkpoint's own.
        replace: the user may put ``given`` in the place of the checkpoint's own licence.

    Raises:
        OV2VSSError: ``given`` would drop the licence that the weights are under.
    """
    own = license_beside(checkpoint)
    if given is None:
        return own
    text = _read(given)
    if own is not None and not replace and _words(own) not in _words(text):
        raise OV2VSSError(
            f"the checkpoint is under a licence of its own ({checkpoint.parent / LICENSE}: "
            f"{license_title(own)!r}), which {given} does not contain",
            "leave --license out, put that text into your file, or, if you have the right to, add --replace-license",
        )
    return text


def license_title(text: str) -> str:
    """The first line of a licence that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "empty")


def _words(text: str) -> str:
    return " ".join(text.split())


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise OV2VSSError(f"{file} is not a text file", "store the licence as UTF-8 text") from None
