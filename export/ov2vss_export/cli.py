"""``ov2vss-export``: checkpoint and words in, verified bundle out."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ov2vss.options import clip_options
from ov2vss_runtime.bundle.bundle import PRECISIONS, Bundle, find_bundle
from ov2vss_runtime.console import CONTEXT, print_json, program
from ov2vss_runtime.errors import OV2VSSError

if TYPE_CHECKING:
    from ov2vss_runtime.bundle.verify import Gate
    from ov2vss_runtime.engines.plans import Library

log = logging.getLogger("ov2vss")


def _precisions(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    wrong = [name for name in names if name not in (*PRECISIONS, "bf16")]
    if wrong or not names:
        raise click.BadParameter(f"{', '.join(wrong) or 'nothing'} is not among {', '.join(PRECISIONS)}")
    return tuple(names)


@click.command(context_settings=CONTEXT)
@click.option("--ckpt", default=None, type=click.Path(path_type=Path), help="Run folder of ov2vss-train.")
@click.option("--vocab", default=None, metavar="FILE|WORDS", help="Default words [default: the classes of the run].")
@click.option("--out", default=None, type=click.Path(path_type=Path), help="Bundle folder [default: <run>-bundle].")
@click.option(
    "--size", default=None, metavar="HxW", help="Frame size, snapped to multiples of 32 [default: training's]."
)
@click.option(
    "--precision",
    "precisions",
    default=None,
    callback=_precisions,
    metavar="LIST",
    help="fp32 (always), fp16, int8, separated by commas [default: fp32; for --verify-only all that there are].",
)
@click.option(
    "--text-weights",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "int8"]),
    help="Storage of the text graph's weights; int8 is a quarter of the size.",
)
@click.option(
    "--calibrate",
    default=None,
    type=click.Path(path_type=Path),
    help="Video of yours, for int8 ranges and the parity gates.",
)
@click.option(
    "--rollout",
    default=64,
    show_default=True,
    type=click.IntRange(45, 10_000),
    help="Frames that are streamed and compared with torch; a shorter video is used whole.",
)
@click.option(
    "--decoder-parts/--whole-decoder",
    default=True,
    show_default=True,
    help="Also write the decoder in two parts: long word lists are faster on onnxruntime, and the bundle is larger.",
)
@click.option("--data", default=None, help="Labelled videos: the gates compare mIoU on them too.")
@click.option("--split", default="test", show_default=True, help="Split of --data.")
@click.option(
    "--license",
    "license_file",
    default=None,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Licence of the weights, copied into the bundle as LICENSE-WEIGHTS.",
)
@click.option(
    "--card",
    "card_file",
    default=None,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Markdown about data, figures, limits and use, put into the bundle's model card.",
)
@clip_options
@click.option("--allow-parity-failure", is_flag=True, help="Keep a bundle that fails a gate; the manifest records it.")
@click.option("--verify-only", default=None, metavar="BUNDLE", help="Check a finished bundle on this machine.")
@click.option(
    "--backend", default="onnxruntime", show_default=True, help="For --verify-only: what runs it, as in ov2vss-run."
)
@click.option(
    "--add-vocab",
    default=None,
    metavar="FILE",
    help="With --bundle: add words and their embeddings, named as the file.",
)
@click.option("--bundle", default=None, metavar="BUNDLE", help="A finished bundle, for --add-vocab and --engine.")
@click.option(
    "--engine",
    default=None,
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Also build plans into BUNDLE/plans; with --bundle for a finished one.",
)
@click.option(
    "--compute",
    default=None,
    metavar="SM89",
    help="Compute capability for tensorrt-rtx, which needs no GPU to build; tensorrt builds for the GPU that is there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    ckpt: Path | None,
    vocab: str | None,
    out: Path | None,
    size: str | None,
    precisions: tuple[str, ...] | None,
    text_weights: str,
    calibrate: Path | None,
    rollout: int,
    decoder_parts: bool,
    data: str | None,
    split: str,
    license_file: Path | None,
    card_file: Path | None,
    clip_weights: str | None,
    download: bool,
    allow_parity_failure: bool,
    verify_only: str | None,
    backend: str,
    add_vocab: str | None,
    bundle: str | None,
    engine: str | None,
    compute: str | None,
    as_json: bool,
) -> None:
    """Export a checkpoint to a bundle of four ONNX graphs, and prove that they equal the trained model.

    \b
      ov2vss-export --ckpt runs/street --vocab classes.txt
      ov2vss-export --ckpt runs/street --vocab "road; car; sky" --size 352x640 --out my-bundle
      ov2vss-export --ckpt runs/street --precision fp32,fp16,int8 --calibrate drive.mp4
      ov2vss-export --verify-only my-bundle
      ov2vss-export --add-vocab animals.txt --bundle my-bundle
      ov2vss-export --bundle my-bundle --engine tensorrt-rtx --compute SM89
    """
    plans_only = engine if ckpt is None and bundle is not None and add_vocab is None else None
    if sum(x is not None for x in (ckpt, verify_only, add_vocab, plans_only)) != 1:
        raise click.UsageError("give exactly one of --ckpt, --verify-only, --add-vocab, and --engine with --bundle")
    if (bundle is not None and (ckpt is not None or verify_only is not None)) or (add_vocab and bundle is None):
        raise click.UsageError("--bundle goes with --add-vocab or --engine, and --add-vocab needs it")
    if (engine == "tensorrt-rtx") != (compute is not None):
        raise click.UsageError("--engine tensorrt-rtx and --compute need each other (SM75 to SM121)")
    if ckpt is None:
        own = {"as_json", "debug", *(("verify_only", "backend", "precisions") if verify_only else ("bundle",))}
        own |= {"add_vocab"} if add_vocab else {"engine", "compute", "precisions"} if plans_only else set()
        given = click.get_current_context().get_parameter_source
        for option in click.get_current_context().command.params:
            if option.name not in own and given(option.name) == click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{option.opts[0]} needs --ckpt")
    if verify_only is not None:
        _verify_only(verify_only, backend, precisions, as_json)
        return
    if add_vocab is not None:
        _add_vocabulary(add_vocab, bundle, as_json)
        return
    if plans_only is not None:
        _build_plans(Bundle.open(bundle), engine, compute, precisions or ("fp32",), as_json)
        return

    from ov2vss import checkpoint
    from ov2vss_export.bundle_writer import ExportRequest, export_bundle
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.preprocess import parse_size, snap

    if "bf16" in (precisions or ()):
        raise OV2VSSError("bf16 is not stored: openvino computes the fp32 graphs in it", "leave bf16 out")
    began = time.perf_counter()
    found = checkpoint.find(ckpt)
    words = (
        Vocabulary.parse(vocab) if vocab is not None else Vocabulary.from_lines(found.run.classes, "the run's classes")
    )
    wanted = parse_size(size) if size else found.run.train.size
    snapped = snap(wanted)
    if snapped != tuple(wanted):
        log.warning("size %dx%d -> %dx%d (multiples of 32)", *wanted, *snapped)
    for option, file in (("--license", license_file), ("--card", card_file)):
        if file is not None and not file.is_file():
            raise OV2VSSError(f"{file} does not exist", f"check {option}")
    run_folder = found.folder.parent.resolve()
    out = out or Path(f"{run_folder.name}-bundle")
    gates = export_bundle(
        ExportRequest(
            found,
            words,
            out,
            snapped,
            tuple(p for p in PRECISIONS if p == "fp32" or p in (precisions or ())),
            text_weights,
            calibrate,
            data,
            split,
            license_file,
            card_file,
            allow_parity_failure,
            rollout,
            found.run.clip_source(clip_weights, download),
            decoder_parts,
        )
    )
    seconds = time.perf_counter() - began
    _print(gates)
    total = sum(p.stat().st_size for p in out.iterdir()) / 1e6
    click.echo(f"bundle: {out}  ({len(words)} words, {snapped[0]}x{snapped[1]}, {total:.1f} MB, {seconds:.0f} s)")
    if engine is not None:
        _build_plans(Bundle.open(out), engine, compute, precisions or ("fp32",), as_json=False)
    if as_json:
        print_json({"bundle": str(out), "megabytes": total, "seconds": seconds, "gates": _records(gates)})


def _verify_only(bundle: str, backend: str, precisions: tuple[str, ...] | None, as_json: bool) -> None:
    """Gates of a bundle on one engine of this machine, at some or all precisions; exit code 1 if one fails."""
    from ov2vss_runtime.bundle.verify import verify_bundle
    from ov2vss_runtime.engines.backends import BACKENDS, load_engine

    opened = Bundle.open(bundle)
    if precisions is None:
        family = BACKENDS[backend].family if backend in BACKENDS else ""
        offered = [v.precision for v in opened.manifest.variants.values() if family in v.engines]
        precisions = tuple(offered) or ("fp32",)
    gates = {p: verify_bundle(load_engine(opened, backend, p)) for p in precisions}
    _print(gates)
    if as_json:
        print_json({"bundle": str(opened.folder), "gates": _records(gates)})
    failed = [f"{gate.name} ({name})" for name, found in gates.items() for gate in found if not gate.passed]
    if failed:
        raise OV2VSSError(f"{opened.folder} is not what was exported: {', '.join(failed)}", "do not use it")


def _add_vocabulary(file: str, bundle: str, as_json: bool) -> None:
    from ov2vss_runtime.bundle.added_words import add_vocabulary
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    words, folder = Vocabulary.from_file(file), find_bundle(bundle)
    name = Path(file).stem
    computed = add_vocabulary(folder, name, words)
    state = f"{computed} embeddings computed" if computed else "all embeddings were there"
    click.echo(f"{folder}: {len(words)} words as {name!r}, {state}; use them with --vocab {name}")
    if as_json:
        print_json({"bundle": str(folder), "vocabulary": name, "words": len(words), "computed": computed})


def _build_plans(
    bundle: Bundle, engine: Library, compute: str | None, precisions: tuple[str, ...], as_json: bool
) -> None:
    """Plans that are there with the right key are kept."""
    from ov2vss_runtime.engines.plans import ensure_plans, local_capability

    plans = []
    for precision in precisions:
        for graph, (file, built) in ensure_plans(bundle, precision, engine, compute or local_capability()).items():
            size = file.stat().st_size
            plans.append({"graph": graph, "precision": precision, "file": str(file), "bytes": size, "built": built})
            click.echo(f"{file}  {size / 1e6:.1f} MB{'' if built else '  (kept)'}")
    if as_json:
        print_json({"bundle": str(bundle.folder), "engine": engine, "plans": plans})


def _print(gates: dict[str, list[Gate]]) -> None:
    for variant, found in gates.items():
        click.echo(f"{variant}:")
        for gate in found:
            click.echo(f"  {gate.row()}")


def _records(gates: dict[str, list[Gate]]) -> dict[str, list[dict]]:
    return {variant: [gate.record() for gate in found] for variant, found in gates.items()}
