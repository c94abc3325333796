"""What the modes that make a bundle have in common: checks before the work, fields of the request, the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ov2vss_export.commands.gates import gate_records, print_gates
from ov2vss_export.commands.mode import Options
from ov2vss_export.commands.plans import build_plans, check_engine
from ov2vss_runtime.bundle.bundle import PRECISIONS, Bundle
from ov2vss_runtime.console import print_json
from ov2vss_runtime.errors import OV2VSSError

if TYPE_CHECKING:
    from ov2vss_export.export_request import ExportRequest
    from ov2vss_runtime.bundle.gates import Gate

Request = TypeVar("Request", bound="ExportRequest")


def check_early(options: Options) -> None:
    """What can be seen before torch is imported: precisions, the engine of plans, files.

    Raises:
        OV2VSSError: one of them cannot be used.
    """
    if options.engine is not None or options.compute is not None:
        check_engine(options.engine, options.compute)  # not after half an hour
    if "bf16" in (options.precisions or ()):
        raise OV2VSSError("bf16 is not stored: openvino computes the fp32 graphs in it", "leave bf16 out", usage=True)
    named = (
        ("--license", options.license_file),
        ("--card", options.card_file),
        ("--calibrate", options.calibrate),
        ("--clip-weights", Path(options.clip_weights) if options.clip_weights not in (None, "random") else None),
    )
    for option, file in named:
        if file is not None and not file.exists():
            raise OV2VSSError(f"{file} does not exist", f"check {option}")


def common_fields(options: Options) -> dict[str, Any]:
    """Fields of a request that are the options themselves."""
    return {
        "precisions": tuple(p for p in PRECISIONS if p == "fp32" or p in (options.precisions or ())),
        "text_weights": options.text_weights,
        "calibrate": options.calibrate,
        "data": options.data,
        "split": options.split,
        "license_file": options.license_file,
        "card_file": options.card_file,
        "allow_parity_failure": options.allow_parity_failure,
        "rollout": options.rollout,
    }


def make(options: Options, request: Request, export: Callable[[Request], dict[str, list[Gate]]]) -> None:
    """Export, print the gates (also of a bundle that failed) and the size, and build plans if they were asked for."""
    from ov2vss_export.export_request import GateError

    began = time.perf_counter()
    try:
        gates = export(request)
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
