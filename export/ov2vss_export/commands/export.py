"""``--ckpt RUN``: a checkpoint becomes a bundle, proven graph by graph."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ov2vss_export.commands.making import check_early, common_fields, make
from ov2vss_export.commands.mode import Mode, Options
from ov2vss_runtime.errors import OV2VSSError

if TYPE_CHECKING:
    from ov2vss_export.export_request import ExportRequest

log = logging.getLogger("ov2vss")


def run(options: Options) -> None:
    """Export, print the gates and the size, and build plans if they were asked for."""
    _check_early(options)
    from ov2vss_export.bundle_writer import export_bundle

    make(options, _request(options), export_bundle)


def _check_early(options: Options) -> None:
    """Paths, words and sizes, before torch is imported.

    Raises:
        OV2VSSError: one of them cannot be used.
    """
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.preprocess import parse_size

    check_early(options)
    assert options.ckpt is not None
    if not options.ckpt.exists():
        raise OV2VSSError(f"checkpoint {options.ckpt} does not exist", "give the folder that ov2vss-train printed")
    if options.out is not None and options.out.exists():
        raise OV2VSSError(f"{options.out} already exists", "choose another --out, or remove it first")
    if options.replace_license and options.license_file is None:
        raise OV2VSSError("--replace-license has nothing to put in its place", "add --license FILE")
    if options.size:
        parse_size(options.size)
    if options.vocab is not None:
        Vocabulary.parse(options.vocab)
    if options.data is not None:
        from ov2vss.data import open_videos

        open_videos(options.data, options.split)


def _request(options: Options) -> ExportRequest:
    """What to export: the run's own words and size where the options name none."""
    from ov2vss import checkpoint
    from ov2vss_export.export_request import ExportRequest
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.preprocess import parse_size, snap

    assert options.ckpt is not None
    found = checkpoint.find(options.ckpt)
    words = (
        Vocabulary.parse(options.vocab)
        if options.vocab is not None
        else Vocabulary.from_lines(found.run.classes, "the run's classes")
    )
    wanted = parse_size(options.size) if options.size else found.run.train.size
    snapped = snap(wanted)
    if snapped != tuple(wanted):
        log.warning("size %dx%d -> %dx%d (multiples of 32)", *wanted, *snapped)
    return ExportRequest(
        checkpoint=found,
        vocabulary=words,
        out=options.out or Path(f"{found.folder.parent.resolve().name}-bundle"),
        size=snapped,
        replace_license=options.replace_license,
        clip=found.run.clip_source(options.clip_weights, options.download),
        decoder_parts=options.decoder_parts,
        store=options.store,  # type: ignore[arg-type]
        **common_fields(options),
    )


MODE = Mode(
    asked_by="--ckpt",
    asked=lambda options: options.ckpt is not None,
    takes=frozenset(Options.__dataclass_fields__)
    - {"verify_only", "backend", "add_vocab", "bundle"}
    - {"clip", "dense", "temperature", "temporal", "synonyms"},
    run=run,
)
