"""``ov2vss-export``: checkpoint and words in, verified bundle out."""

from __future__ import annotations

from pathlib import Path

import click

from ov2vss.options import clip_options
from ov2vss_export.commands import add_words, clip, export, plans, verify
from ov2vss_export.commands.mode import Options, choose
from ov2vss_runtime.bundle.bundle import PRECISIONS
from ov2vss_runtime.console import CONTEXT, Number, program

MODES = (export.MODE, clip.MODE, verify.MODE, add_words.MODE, plans.MODE)


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
@click.option(
    "--clip",
    default=None,
    metavar="MODEL/TAG",
    help="A published CLIP by open_clip's names, ViT-B-16/openai: no training.",
)
@click.option(
    "--dense",
    default=None,
    type=click.Choice(clip.RECIPES),
    help="With --clip: how features of places are taken from it [default: neighbour].",
)
@click.option(
    "--temperature",
    default=None,
    type=Number(0, min_open=True),
    help="With --clip: factor of cosines; confidence depends on it, labels do not [default: 40].",
)
@click.option(
    "--temporal",
    default=None,
    type=click.Choice(["affinity"]),
    help="With --clip: carry features from frame to frame inside the graphs.",
)
@click.option(
    "--synonyms",
    default=None,
    type=click.Choice(["average", "max"]),
    help="With --clip: average the synonyms of a class, or let the best of them count [default: average].",
)
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
    "--store",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "fp16"]),
    help="fp16: round the weights to half precision once and store them so; half the size, same speed.",
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
    help="Licence of the weights, copied into the bundle as LICENSE-WEIGHTS [default: that beside the checkpoint].",
)
@click.option("--replace-license", is_flag=True, help="Let --license drop the licence that lies beside the checkpoint.")
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
@click.option("--device", default=0, show_default=True, type=click.IntRange(0), help="For --verify-only: which GPU.")
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
    help="Also build plans; with --bundle for a finished bundle.",
)
@click.option(
    "--plans",
    default=None,
    type=click.Path(path_type=Path, file_okay=False),
    help="With --engine: folder for the plans, for ov2vss-run --plans [default: your cache folder].",
)
@click.option(
    "--compute",
    default=None,
    metavar="SM89",
    help="Compute capability for tensorrt-rtx, which needs no GPU to build; tensorrt builds for the GPU that is there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(**_options: object) -> None:
    """Export a checkpoint to a bundle of four ONNX graphs, and prove that they equal the trained model.

    \b
      ov2vss-export --ckpt runs/street --vocab classes.txt
      ov2vss-export --ckpt runs/street --vocab "road; car; sky" --size 352x640 --out my-bundle
      ov2vss-export --ckpt runs/street --precision fp32,fp16,int8 --calibrate drive.mp4
      ov2vss-export --clip ViT-B-16/openai --vocab "camel; sand; sky" --download
      ov2vss-export --verify-only my-bundle
      ov2vss-export --add-vocab animals.txt --bundle my-bundle
      ov2vss-export --bundle my-bundle --engine tensorrt-rtx --compute SM89
    """
    context = click.get_current_context()
    options = Options(**{k: v for k, v in context.params.items() if k in Options.__dataclass_fields__})
    choose(MODES, options, context).run(options)
