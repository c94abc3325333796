"""A few masks of one video, from conversion to a scored bundle, with ``--init`` and from scratch in the same time.

    python benchmarks/own_video.py --frames dog/frames --masks dog/labels --name dog --out runs/dog

The masks are 0/255 (255 is the object). The first ``--first`` frames are trained on, with the classes NAME and
background, from the checkpoint ``--init`` and from ImageNet's weights; each model is exported and run over the whole
video by the programs themselves, and the masks that come out are scored on all pixels of the other frames. On two
cores: about a quarter of an hour a model.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

from ov2vss_runtime.console import CONTEXT, print_json, program
from ov2vss_runtime.errors import OV2VSSError

SCRIPTS = Path(sys.executable).parent


def timed(*command: str | Path) -> tuple[float, float]:
    """Run a command; seconds by the clock and of processors."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    code = subprocess.run([str(part) for part in command], stdout=sys.stderr, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise OV2VSSError(f"{Path(command[0]).name} ended with exit code {code}", "see above")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def convert(data: Path, frames: Path, masks: Path, name: str, first: int) -> None:
    for video, split, part in (("first", "train", f":{first}"), ("rest", "val", f"{first}:")):
        ids = f"255={name}; 0=background"
        options = ["--name", video, "--split", split, "--part", part, "--frames", frames, "--masks", masks]
        timed(sys.executable, "-m", "ov2vss.data.convert", data, *options, "--ids", ids)


def follow(kind: str, start: list[str], data: Path, frames: Path, out: Path, settings: list[str]) -> dict[str, object]:
    """Train, export, run and score one model."""
    run, bundle, masks, row = out / kind, out / f"{kind}-bundle", out / f"{kind}-masks", {}
    more = [part for setting in settings for part in ("--set", setting)]
    row["train"] = timed(SCRIPTS / "ov2vss-train", *start, "--data", data, "--out", run, "--no-score", *more)
    row["export"] = timed(SCRIPTS / "ov2vss-export", "--ckpt", run, "--out", bundle)
    outputs = ["--masks", masks, "--out", out / f"{kind}.mp4", "--rate", "24"]
    row["run"] = timed(SCRIPTS / "ov2vss-run", frames, "--bundle", bundle, *outputs)
    (masks / frames.name).rename(masks / "rest")  # the folder of the frames is the video's name there
    scores = out / f"{kind}.json"
    timed(SCRIPTS / "ov2vss-eval", "--pred", masks, "--data", data, "--split", "val", "--json", scores)
    row["iou"] = json.loads(scores.read_text())["per_class"]
    row["minutes"] = sum(row[step][0] for step in ("train", "export", "run")) / 60
    row["processor_minutes"] = sum(row[step][1] for step in ("train", "export", "run")) / 60
    return row


@click.command(context_settings=CONTEXT)
@click.option("--frames", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--masks", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", required=True, help="The word for what is 255 in the masks.")
@click.option("--first", default=8, show_default=True, type=click.IntRange(1), help="Frames that are trained on.")
@click.option("--init", default="models/street-lite", show_default=True, help="Run to start from.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for everything that is made.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of both; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    frames: Path, masks: Path, name: str, first: int, init: str, out: Path, settings: tuple[str, ...], as_json: bool
) -> None:
    """Train on a few masks of a video, export, run, and score the rest of it."""
    from ov2vss.presets import FINE_TUNING

    if out.exists():
        raise OV2VSSError(f"{out} exists", "choose another --out")
    data = out / "data"
    convert(data, frames, masks, name, first)
    schedule = [f"{key}={value}" for key, value in FINE_TUNING.items()]
    rows = {
        "init": follow("init", ["--init", init], data, frames, out, list(settings)),
        "scratch": follow("scratch", ["--preset", "lite-any"], data, frames, out, [*schedule, *settings]),
    }
    click.echo(f"{'':<10}{name + ' IoU':>10}{'background':>12}{'minutes':>10}{'processor minutes':>20}")
    for kind, row in rows.items():
        iou = row["iou"]
        spent = f"{row['minutes']:>10.1f}{row['processor_minutes']:>20.1f}"
        click.echo(f"{kind:<10}{iou[name]:>10.3f}{iou['background']:>12.3f}{spent}")
    if as_json:
        print_json(rows)


if __name__ == "__main__":
    main()
