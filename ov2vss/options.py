"""Command-line options that several programs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


def clip_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--clip-weights`` and ``--download``; the values arrive as ``clip_weights`` and ``download``."""
    file = click.option(
        "--clip-weights",
        default=None,
        metavar="FILE",
        callback=lambda _context, _option, value: value if value in (None, "random") else str(Path(value).resolve()),
        help="Weights of a model's frozen CLIP, or 'random' [default: as in training, else the local hub cache].",
    )
    fetch = click.option("--download", is_flag=True, help="Allow weights to be fetched from the hub.")
    return file(fetch(function))


def strict_option(function: Callable[..., None]) -> Callable[..., None]:
    """``--strict``; arrives as ``strict``."""
    return click.option("--strict", is_flag=True, help="Stop at a corrupt image or mask instead of skipping it.")(
        function
    )
