"""``ov2vss-train``: clips with labels in, checkpoint out."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ov2vss.options import clip_options, strict_option
from ov2vss_runtime.console import CONTEXT, print_json, program

if TYPE_CHECKING:
    from ov2vss.presets import TrainConfig

log = logging.getLogger("ov2vss")


@click.command(context_settings=CONTEXT)
@click.option("--preset", default=None, help="tiny (default), lite, lite-any, scenes, ov2vss-r101 or ov2vss-pvt-b2.")
@click.option(
    "--data",
    "sets",
    multiple=True,
    help="A folder in the VSPW layout, or Cityscapes, or 'shapes': generated clips (default). Given again: further, "
    "partly labelled sets in the VSPW layout (preset scenes).",
)
@click.option(
    "--out", default=None, type=click.Path(path_type=Path), help="Run folder [default: runs/<preset>-<time>]."
)
@click.option(
    "--init",
    default=None,
    metavar="RUN|CHECKPOINT",
    help="Start from the weights of another run, with own classes and data (clip:MODEL/TAG: from a CLIP).",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the last checkpoint in --out, with the settings stored there; --set iterations=N for more.",
)
@click.option("--stills", is_flag=True, help="Every frame is a picture of its own, without a past.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting; may be repeated.")
@clip_options
@strict_option
@click.option("--check", is_flag=True, help="Look at all masks of --data, say what is wrong with them, and stop.")
@click.option("--no-score", is_flag=True, help="Do not stream the labelled split through the model at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    preset: str | None,
    sets: tuple[str, ...],
    out: Path | None,
    init: str | None,
    resume: bool,
    stills: bool,
    overrides: tuple[str, ...],
    clip_weights: str | None,
    download: bool,
    strict: bool,
    check: bool,
    no_score: bool,
    as_json: bool,
) -> None:
    """Train an OV2VSS model.

    Without arguments: the tiny preset on generated clips, a few minutes on two CPU cores.

    \b
      ov2vss-train
      ov2vss-train --preset lite --data camvid --out runs/street
      ov2vss-train --data my-masks --check
      ov2vss-train --preset scenes --data camvid --data davis --out runs/scenes
      ov2vss-train --out runs/street --resume
      ov2vss-train --init models/street-lite --data mine --out runs/mine
      ov2vss-train --set iterations=200 --set model.width=16
    """
    from ov2vss.data import labelled_split, open_videos
    from ov2vss.data.check import check_data, require_sound
    from ov2vss.errors import OV2VSSError
    from ov2vss.presets import FITTED, configure, named_preset
    from ov2vss.train.preflight import check_settings
    from ov2vss.train.report import announce, print_check

    data, more = (sets[0] if sets else None), sets[1:]
    if resume:
        if out is None:
            raise OV2VSSError("--resume needs the run to go on with", "add --out RUN", usage=True)
        other = [o for o in overrides if o.partition("=")[0].strip() != "iterations"]
        if preset or data or other or clip_weights or init or stills:
            raise OV2VSSError(
                "--resume takes its settings from the run",
                "leave out --preset, --data, --init, --stills, --clip-weights and every --set but iterations=N",
                usage=True,
            )
        from ov2vss import checkpoint
        from ov2vss.train.start import further

        config = further(checkpoint.find(out, "last"), list(overrides))
    else:
        if init is not None and data is None:
            raise OV2VSSError("--init needs something to train on", "add --data DIR", usage=True)
        if init is not None and not init.startswith("clip:") and not Path(init).exists():
            raise OV2VSSError(f"--init {init} does not exist", "give the folder that ov2vss-train printed")
        base: str | TrainConfig = preset or "tiny"
        named_preset(preset or "tiny")
        for folder in () if check else sets:
            open_videos(folder, "train")
        if more and check:
            raise OV2VSSError("--check looks at one data set", "give --data once", usage=True)
        if init is not None:
            from ov2vss.train.start import start_from

            base = start_from(init, preset)
        config = configure(
            base, list(overrides), data=data, more_data=more, clip_weights=clip_weights, stills=stills or None
        )
        if bool(config.more_data) != bool(config.relations):
            raise OV2VSSError(
                "several sets are trained with the preset scenes, and that one needs several",
                "add --preset scenes, or --set relations=FILE; or give --data for each set",
                usage=True,
            )
        own_size = any(o.partition("=")[0].strip() in ("size", "crop") for o in overrides)
        if config.preset in FITTED and not own_size:
            from ov2vss.train.start import fit_frames

            config = fit_frames(config)
            log.info("frames of %d x %d (height x width), for the aspect of the training videos", *config.size)
        if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not check:
            raise OV2VSSError("several processes need one run folder", "add --out RUN", usage=True)
        out = out or Path("runs") / f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
        if not check and (any(out.glob("step-*")) if out.is_dir() else out.exists()):
            raise OV2VSSError(f"{out} already holds a run", "add --resume, or choose another --out")
    # Nothing of this needs torch, whose import takes longer than all of it.
    if check:
        print_check(check_data(config.data, config.holds_out), as_json)
        return
    check_settings(config)
    if os.environ.get("RANK", "0") == "0":
        for folder in (config.data, *config.more_data):
            found = check_data(folder, config.holds_out, quick=True)
            announce(found)
            require_sound(found)

    from ov2vss import checkpoint
    from ov2vss.torch_engine import PerFrameEngine, TorchEngine
    from ov2vss.train.loop import Trainer
    from ov2vss.train.memory import keep_freed_memory
    from ov2vss.train.validate import validate

    keep_freed_memory()
    began = time.perf_counter()
    if config.more_data:
        from ov2vss.train.many import MixedTrainer

        trainer: Trainer = MixedTrainer(config, out, resume, strict, download)
    else:
        trainer = Trainer(config, out, resume, strict, download)
    names = ", ".join((config.data, *config.more_data))
    log.info("training %s on %s for %d iterations -> %s", config.preset, names, config.iterations, out)
    trainer.fit()
    trained = checkpoint.find(out)
    split = None if no_score or config.more_data else labelled_split(config.data)
    report: dict[str, Any] = {"checkpoint": str(out)}
    if split is not None:
        model = trained.build(trained.run.clip_source(download=download)).to(trainer.fabric.device)
        for key, engine in ((split, TorchEngine), (f"{split}_per_frame", PerFrameEngine)):
            report[key] = validate(model, trainer.encoder, config, trained.run, split, engine, trainer.fabric, strict)
    if not trainer.fabric.is_global_zero:
        return
    report["seconds"] = time.perf_counter() - began
    if as_json:
        print_json(report)
        return
    if config.more_data:
        click.echo("not scored: ov2vss-eval scores a model on one set at a time")
    elif no_score:
        click.echo(f"not scored: ov2vss-eval --ckpt {out} --data {config.data}")
    elif split is None:
        click.echo("not scored: the data set has masks neither in test nor in val")
    else:
        for title, key in (("streamed", split), ("the same model per frame", f"{split}_per_frame")):
            click.echo(f"{split}, {title}: {_summary(report[key])}")
    click.echo(f"checkpoint: {out}  ({report['seconds']:.0f} s)")


def _summary(scores: dict) -> str:
    titles = {"miou": "mIoU", "seen_miou": "seen", "unseen_miou": "unseen", "harmonic_miou": "harmonic", "vc8": "VC8"}
    return ", ".join(f"{title} {scores[k]:.3f}" for k, title in titles.items() if scores.get(k) is not None)
