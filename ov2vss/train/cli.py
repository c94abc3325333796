"""``ov2vss-train``: clips with labels in, checkpoint out."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from pathlib import Path

import click

from ov2vss_runtime.console import CONTEXT, print_json, program

log = logging.getLogger("ov2vss")


@click.command(context_settings=CONTEXT)
@click.option("--preset", default=None, help="tiny (default) or lite. See ov2vss/presets.py for what they set.")
@click.option("--data", default=None, help="A folder in the VSPW layout, or 'shapes' for generated clips (default).")
@click.option(
    "--out", default=None, type=click.Path(path_type=Path), help="Run folder [default: runs/<preset>-<time>]."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out, with the settings stored there.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object on the last line.")
@program
def main(
    preset: str | None, data: str | None, out: Path | None, resume: bool, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Train an OV2VSS model.

    Without arguments: the tiny preset on generated clips, a few minutes on two CPU cores.

    \b
      ov2vss-train
      ov2vss-train --preset lite --data camvid --out runs/street
      ov2vss-train --out runs/street --resume
      ov2vss-train --set iterations=200 --set model.width=16
    """
    from ov2vss import checkpoint
    from ov2vss.errors import OV2VSSError
    from ov2vss.presets import configure
    from ov2vss.torch_engine import PerFrameEngine
    from ov2vss.train.loop import Trainer, validate

    if resume:
        if out is None:
            raise OV2VSSError("--resume needs the run to go on with", "add --out RUN")
        if preset or data or overrides:
            raise OV2VSSError("--resume takes its settings from the run", "leave out --preset, --data and --set")
        config = checkpoint.find(out, "last").run.train
    else:
        config = configure(preset or "tiny", list(overrides), data=data)
        out = out or Path("runs") / f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
        if any(out.glob("step-*")) if out.is_dir() else out.exists():
            raise OV2VSSError(f"{out} already holds a run", "add --resume, or choose another --out")
    began = time.perf_counter()
    trainer = Trainer(config, out, resume)
    log.info("training %s on %s for %d iterations -> %s", config.preset, config.data, config.iterations, out)
    trainer.fit()
    trained = checkpoint.find(out)
    model, run = trained.build(), trained.run
    scores = validate(model, trainer.encoder, config, run, "test")
    single = validate(model, trainer.encoder, config, run, "test", PerFrameEngine)
    seconds = time.perf_counter() - began
    if as_json:
        print_json({"checkpoint": str(out), "seconds": seconds, "test": scores, "test_per_frame": single})
        return
    for title, result in (("streamed", scores), ("the same model per frame", single)):
        parts = [f"mIoU {result['miou']:.3f}"]
        if "unseen_miou" in result:
            parts += [f"seen {result['seen_miou']:.3f}", f"unseen {result['unseen_miou']:.3f}"]
            parts += [f"harmonic {result['harmonic_miou']:.3f}"]
        if result["vc8"] is not None:
            parts += [f"VC8 {result['vc8']:.3f}"]
        click.echo(f"test, {title}: {', '.join(parts)}")
    click.echo(f"checkpoint: {out}  ({seconds:.0f} s)")
