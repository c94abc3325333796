"""``--ckpt RUN``: a checkpoint becomes a bundle, proven graph by graph."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ov2vss_export.commands.gates import gate_records, print_gates
from ov2vss_export.commands.mode import Mode, Options
from ov2vss_export.commands.plans import build_plans, check_engine
from ov2vss_runtime.bundle.bundle import PRECISIONS, Bundle
from ov2vss_runtime.console import print_json
from ov2vss_runtime.errors import OV2VSSError

if TYPE_CHECKING:
    from ov2vss_export.export_request import ExportRequest

log = logging.getLogger("ov2vss")


def run(options: Options) -> None:
    """Export, print the gates and the size, and build plans if they were asked for."""
    _check_early(options)
    from ov2vss_export.bundle_writer import export_bundle
    from ov2vss_export.export_request import GateError

    if options.engine is not None or options.compute is not None:
        check_engine(options.engine, options.compute)  # not after half an hour
    if "bf16" in (options.precisions or ()):
        raise OV2VSSError("bf16 is not stored: openvino computes the fp32 graphs in it", "leave bf16 out", usage=True)
    began = time.perf_counter()
    request = _request(options)
    try:
        gates = export_bundle(request)
    except GateError as error:
        print_gates(error.gates)
        raise
    seconds = time.perf_counter() - began
    print_gates(gates)
    out, (height, width) = request.out, request.size
    total = sum(p.stat().st_size for p in out.iterdir()) / 1e6
    words = len(request.vocabulary)
    click.echo(f"bundle: {out}  ({words} words, {height}x{width}, {total:.1f} MB, {seconds:.0f} s)")
    if options.engine is not None:
        build_plans(options, Bundle.open(out), as_json=False)
    if options.as_json:
        print_json({"bundle": str(out), "megabytes": total, "seconds": seconds, "gates": gate_records(gates)})


def _check_early(options: Options) -> None:
    """Paths, words and sizes, before torch is imported.

    Raises:
        OV2VSSError: one of them cannot be used.
    """
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.preprocess import parse_size

    assert options.ckpt is not None
    if not options.ckpt.exists():
        raise OV2VSSError(f"checkpoint {options.ckpt} does not exist", "give the folder that ov2vss-train printed")
    if options.out is not None and options.out.exists():
        raise OV2VSSError(f"{options.out} already exists", "choose another --out, or remove it first")
    named = (
        ("--license", options.license_file),
        ("--card", options.card_file),
        ("--calibrate", options.calibrate),
        ("--clip-weights", Path(options.clip_weights) if options.clip_weights not in (None, "random") else None),
    )
    for option, file in named:
        if file is not None and not file.exists():
            raise OV2VSSError(f"{file} does not exist", f"check {option}")
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
        precisions=tuple(p for p in PRECISIONS if p == "fp32" or p in (options.precisions or ())),
        text_weights=options.text_weights,
        calibrate=options.calibrate,
        data=options.data,
        split=options.split,
        license_file=options.license_file,
        replace_license=options.replace_license,
        card_file=options.card_file,
        allow_parity_failure=options.allow_parity_failure,
        rollout=options.rollout,
        clip=found.run.clip_source(options.clip_weights, options.download),
        decoder_parts=options.decoder_parts,
        store=options.store,  # type: ignore[arg-type]
    )


MODE = Mode(
    asked_by="--ckpt",
    asked=lambda options: options.ckpt is not None,
    takes=frozenset(Options.__dataclass_fields__)
    - {"verify_only", "backend", "add_vocab", "bundle"}
    - {"clip", "dense", "temperature", "temporal", "synonyms"},
    run=run,
)
