"""``--clip MODEL/TAG``: a published CLIP becomes a bundle without any training."""

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
    from ov2vss_export.clip_writer import ClipRequest

log = logging.getLogger("ov2vss")
SIZE = "288x512"
WORDS = "person; animal; vehicle; building; plant; road; sky; water"
"""Words of a bundle for which none were given; others are given at run time."""
RECIPES = ("neighbour", "value", "calibrated")


def run(options: Options) -> None:
    """Export, print the gates and the size, and build plans if they were asked for."""
    from ov2vss_export.clip_writer import export_clip

    if options.engine is not None or options.compute is not None:
        check_engine(options.engine, options.compute)
    began = time.perf_counter()
    request = _request(options)
    gates = export_clip(request)
    seconds = time.perf_counter() - began
    print_gates(gates)
    out, (height, width) = request.out, request.size
    total = sum(p.stat().st_size for p in out.iterdir()) / 1e6
    click.echo(f"bundle: {out}  ({len(request.vocabulary)} words, {height}x{width}, {total:.1f} MB, {seconds:.0f} s)")
    if options.engine is not None:
        build_plans(options, Bundle.open(out), as_json=False)
    if options.as_json:
        print_json({"bundle": str(out), "megabytes": total, "seconds": seconds, "gates": gate_records(gates)})


def _request(options: Options) -> ClipRequest:
    from ov2vss.clip_source import ClipSource
    from ov2vss_export.clip_writer import ClipRequest, fitted_size
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.preprocess import parse_size

    assert options.clip is not None
    model, slash, tag = options.clip.partition("/")
    if not model or (slash and not tag):
        raise OV2VSSError(f"{options.clip!r} is not MODEL/TAG", "write it like ViT-B-16/openai", usage=True)
    if "bf16" in (options.precisions or ()):
        raise OV2VSSError("bf16 is not stored: openvino computes the fp32 graphs in it", "leave bf16 out")
    for option, file in (("--license", options.license_file), ("--card", options.card_file)):
        if file is not None and not file.is_file():
            raise OV2VSSError(f"{file} does not exist", f"check {option}")
    wanted = parse_size(options.size or SIZE)
    size = fitted_size(model, wanted)
    if size != tuple(wanted):
        log.warning("size %dx%d -> %dx%d (multiples of the model's patch)", *wanted, *size)
    recipe = options.dense or RECIPES[0]
    return ClipRequest(
        checkpoint=None,  # type: ignore[arg-type]  # there is none
        vocabulary=Vocabulary.parse(options.vocab if options.vocab is not None else WORDS),
        out=options.out or Path(f"{model}-{tag or 'weights'}-bundle"),
        size=size,
        precisions=tuple(p for p in PRECISIONS if p == "fp32" or p in (options.precisions or ())),
        text_weights=options.text_weights,
        calibrate=options.calibrate,
        data=options.data,
        split=options.split,
        license_file=options.license_file,
        card_file=options.card_file,
        allow_parity_failure=options.allow_parity_failure,
        rollout=options.rollout,
        decoder_parts=False,
        model=model,
        tag=tag,
        source=ClipSource(options.clip_weights or "", options.download),
        dense=recipe,
        temperature=options.temperature or 40.0,
        affinity=options.temporal == "affinity",
        synonyms=options.synonyms or "average",
    )


MODE = Mode(
    asked_by="--clip",
    asked=lambda options: options.clip is not None,
    takes=frozenset(Options.__dataclass_fields__)
    - {"ckpt", "verify_only", "backend", "device", "add_vocab", "bundle", "decoder_parts", "replace_license", "store"},
    run=run,
)
