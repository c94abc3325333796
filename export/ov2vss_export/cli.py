"""``ov2vss-export``: checkpoint and words in, verified bundle out."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import click

from ov2vss.options import clip_options
from ov2vss_runtime.console import CONTEXT, print_json, program

log = logging.getLogger("ov2vss")


@click.command(context_settings=CONTEXT)
@click.option("--ckpt", required=True, type=click.Path(path_type=Path), help="Run folder of ov2vss-train.")
@click.option("--vocab", default=None, metavar="FILE|WORDS", help="Default words [default: the classes of the run].")
@click.option("--out", default=None, type=click.Path(path_type=Path), help="Bundle folder [default: <run>-bundle].")
@click.option(
    "--size", default=None, metavar="HxW", help="Frame size, snapped to multiples of 32 [default: training's]."
)
@click.option(
    "--text-weights",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "int8"]),
    help="Storage of the text graph's weights; int8 is a quarter of the size.",
)
@click.option("--calibrate", default=None, type=click.Path(path_type=Path), help="Video for the parity gates.")
@click.option(
    "--license",
    "license_file",
    default=None,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Licence of the weights, copied into the bundle as LICENSE-WEIGHTS.",
)
@clip_options
@click.option("--allow-parity-failure", is_flag=True, help="Keep a bundle that fails a gate; the manifest records it.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    ckpt: Path,
    vocab: str | None,
    out: Path | None,
    size: str | None,
    text_weights: str,
    calibrate: Path | None,
    license_file: Path | None,
    clip_weights: str | None,
    download: bool,
    allow_parity_failure: bool,
    as_json: bool,
) -> None:
    """Export a checkpoint to a bundle of four ONNX graphs, and prove that they equal the trained model.

    \b
      ov2vss-export --ckpt runs/street --vocab classes.txt
      ov2vss-export --ckpt runs/street --vocab "road; car; sky" --size 352x640 --out my-bundle
    """
    from ov2vss import checkpoint
    from ov2vss.errors import OV2VSSError
    from ov2vss_export.bundle_writer import ExportRequest, export_bundle
    from ov2vss_runtime.preprocess import parse_size, snap
    from ov2vss_runtime.vocabulary import Vocabulary

    began = time.perf_counter()
    found = checkpoint.find(ckpt)
    words = (
        Vocabulary.parse(vocab) if vocab is not None else Vocabulary.from_lines(found.run.classes, "the run's classes")
    )
    wanted = parse_size(size) if size else found.run.train.size
    snapped = snap(wanted)
    if snapped != tuple(wanted):
        log.warning("size %dx%d -> %dx%d (multiples of 32)", *wanted, *snapped)
    if license_file is not None and not license_file.is_file():
        raise OV2VSSError(f"licence {license_file} does not exist", "check --license")
    run_folder = found.folder.parent.resolve()
    out = out or Path(f"{run_folder.name}-bundle")
    gates = export_bundle(
        ExportRequest(
            found,
            words,
            out,
            snapped,
            text_weights,
            calibrate,
            license_file,
            allow_parity_failure,
            found.run.clip_source(clip_weights, download),
        )
    )
    seconds = time.perf_counter() - began
    for gate in gates:
        click.echo(gate.row())
    total = sum(p.stat().st_size for p in out.iterdir()) / 1e6
    click.echo(f"bundle: {out}  ({len(words)} words, {snapped[0]}x{snapped[1]}, {total:.1f} MB, {seconds:.0f} s)")
    if as_json:
        print_json({"bundle": str(out), "megabytes": total, "seconds": seconds, "gates": [g.record() for g in gates]})
