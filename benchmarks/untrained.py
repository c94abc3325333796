"""A checkpoint of a preset with random weights: for measuring full-size models where nothing can be downloaded.

    python benchmarks/untrained.py --preset ov2vss-r101 --out runs/r101-untrained
    ov2vss-export --ckpt runs/r101-untrained --out r101-untrained-bundle

Backbone, CLIP and the model's own parts are all random, and always the same; the classes are VSPW's 124. Its answers
mean nothing, its speed and the parity of its export do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch

from ov2vss import checkpoint
from ov2vss.data.folder import VSPW_CLASSES
from ov2vss.model import OV2VSS
from ov2vss.model.image_encoder import load_image_encoder
from ov2vss.presets import PRESETS, configure
from ov2vss.text import build_text_encoder
from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.console import CONTEXT, program


def write_untrained(preset: str, out: Path, seed: int = 0, overrides: Sequence[str] = ()) -> Path:
    """Write a run folder with one checkpoint; an existing one is kept. ``overrides`` as of ``ov2vss-train --set``."""
    if (out / "config.json").is_file():
        return out
    has_clip = PRESETS[preset].model.has_clip
    config = configure(preset, ["backbone_weights=none", *overrides], clip_weights="random" if has_clip else None)
    torch.manual_seed(seed)
    model = OV2VSS(config.model)
    source = checkpoint.RunConfig(train=config, classes=["any"], text_encoder_sha256="").clip_source()
    load_image_encoder(model.image_encoder, config.model, source)
    run = checkpoint.RunConfig(
        train=config,
        classes=[", ".join(entry) for entry in Vocabulary.from_file(VSPW_CLASSES).entries],
        text_encoder_sha256=build_text_encoder(config.model, source).identity(),
        image_encoder_sha256=checkpoint.frozen_sha256(model.image_encoder),
    )
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.save(out, 0, model.trained_state(), {}, {"untrained": True})
    write_json(out / "config.json", run.model_dump(mode="json"))
    return out


@click.command(context_settings=CONTEXT)
@click.option("--preset", default="ov2vss-r101", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder to make.")
@click.option("--seed", default=0, show_default=True)
@program
def main(preset: str, out: Path, seed: int) -> None:
    """Write a checkpoint with random weights."""
    click.echo(write_untrained(preset, out, seed))


if __name__ == "__main__":
    main()
