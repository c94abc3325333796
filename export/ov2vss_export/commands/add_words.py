"""``--add-vocab FILE --bundle BUNDLE``: words whose embeddings are then ready, without torch and onnx."""

from __future__ import annotations

from pathlib import Path

import click

from ov2vss_export.commands.mode import Mode, Options
from ov2vss_runtime.bundle.bundle import find_bundle
from ov2vss_runtime.console import print_json


def run(options: Options) -> None:
    """Embed the words of a file and add them to the bundle under the file's name."""
    from ov2vss_runtime.bundle.added_words import add_vocabulary
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    if options.add_vocab is None or options.bundle is None:
        raise click.UsageError("--add-vocab needs --bundle, the bundle that gets the words")
    words, folder = Vocabulary.from_file(options.add_vocab), find_bundle(options.bundle)
    name = Path(options.add_vocab).stem
    computed = add_vocabulary(folder, name, words)
    state = f"{computed} embeddings computed" if computed else "all embeddings were there"
    click.echo(f"{folder}: {len(words)} words as {name!r}, {state}; use them with --vocab {name}")
    if options.as_json:
        print_json({"bundle": str(folder), "vocabulary": name, "words": len(words), "computed": computed})


MODE = Mode(
    asked_by="--add-vocab",
    asked=lambda options: options.add_vocab is not None,
    takes=frozenset({"add_vocab", "bundle"}),
    run=run,
)
