"""A mode of ``ov2vss-export``, the values of its options, and which mode a command line asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource

from ov2vss_runtime.engines.plans import Library


@dataclass(frozen=True)
class Options:
    """The command line: one field an option of ``cli.main``, under the same name."""

    ckpt: Path | None
    clip: str | None
    dense: str | None
    temperature: float | None
    temporal: str | None
    synonyms: str | None
    vocab: str | None
    out: Path | None
    size: str | None
    precisions: tuple[str, ...] | None
    text_weights: str
    calibrate: Path | None
    rollout: int
    decoder_parts: bool
    store: str
    data: str | None
    split: str
    license_file: Path | None
    replace_license: bool
    card_file: Path | None
    clip_weights: str | None
    download: bool
    allow_parity_failure: bool
    verify_only: str | None
    backend: str
    device: int
    add_vocab: str | None
    bundle: str | None
    engine: Library | None
    plans: Path | None
    compute: str | None
    as_json: bool


@dataclass(frozen=True)
class Mode:
    """One thing that the program does.

    Attributes:
        asked_by: the option that asks for it, as it is typed.
        asked: whether these options ask for it.
        takes: names of the options that mean something in it; any other on the command line is an error.
        run: does it.
    """

    asked_by: str
    asked: Callable[[Options], bool]
    takes: frozenset[str]
    run: Callable[[Options], None]


SHARED = frozenset({"as_json", "debug"})


def choose(modes: Sequence[Mode], options: Options, context: click.Context) -> Mode:
    """The one mode that the options ask for.

    Raises:
        click.UsageError: none or several are asked for, or an option was typed that the mode would ignore.
    """
    asked = [mode for mode in modes if mode.asked(options)]
    if len(asked) != 1:
        raise click.UsageError(f"give exactly one of {', '.join(mode.asked_by for mode in modes)}")
    for option in context.command.params:
        name = option.name or ""
        typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if typed and name not in asked[0].takes | SHARED:
            others = [mode.asked_by for mode in modes if name in mode.takes]
            raise click.UsageError(f"{option.opts[0]} needs {' or '.join(others)}")
    return asked[0]
