"""Seconds per training iteration, and what each measure against them gives.

    python benchmarks/training.py --data camvid --preset lite

Every row is a process of its own with one thing changed from the preset; the first and the last row
are the preset itself. The first iterations of a row are not counted. Run it with nothing beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import torch
from machine import processor, revision
from tqdm import tqdm

from ov2vss.presets import PRESETS, configure
from ov2vss.train.loop import Trainer
from ov2vss.train.memory import keep_freed_memory
from ov2vss_runtime.console import CONTEXT, print_json, program

WARM_UP = 4
ROWS: dict[str, list[str]] = {
    "the preset, one frame": ["frames=one"],
    "freed memory goes back to the system": ["frames=one", "memory=returned"],
    "float32 instead of bf16": ["frames=one", "precision=32-true"],
    "not channels-last": ["frames=one", "layout=contiguous"],
    "no worker process": ["frames=one", "workers=0"],
    "two worker processes": ["frames=one", "workers=2"],
    "the preset, clips": ["frames=clip"],
    "clips, references with gradient": ["frames=clip", "reference_grad=true"],
    "the preset, one frame, again": ["frames=one"],
}
"""Row -> settings; ``frames``, ``memory`` and ``layout`` are this script's, the others of ``ov2vss-train --set``."""
OWN = ("frames", "memory", "layout")


def measure(preset: str, data: str, settings: list[str], iterations: int) -> list[float]:
    """Seconds of every counted iteration."""
    own = dict(s.split("=") for s in settings if s.split("=")[0] in OWN)
    single = own["frames"] == "one"
    count = WARM_UP + iterations
    rest = [s for s in settings if s.split("=")[0] not in OWN]
    rest += [f"iterations={count}", f"per_frame_iterations={count if single else 0}"]
    rest += ["save_every=1000000", "validate_every=0"]
    if own.get("memory") != "returned":
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(configure(preset, rest, data=data), Path(out) / "run")
        if own.get("layout") == "contiguous":
            trainer.raw_model.to(memory_format=torch.contiguous_format)
        seconds, original = [], trainer._iterate
        last = time.perf_counter()

        def timed(*args):
            nonlocal last
            loss = original(*args)
            now = time.perf_counter()
            seconds.append(now - last)  # waiting for the data is part of it
            last = now
            return loss

        trainer._iterate = timed
        trainer.fit()
    return seconds[WARM_UP:]


@click.command(context_settings=CONTEXT)
@click.option("--preset", default="lite", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--data", default=None, help="Data set, as of ov2vss-train.")
@click.option("--iterations", default=10, show_default=True, type=click.IntRange(2), help="Iterations that count.")
@click.option("--row", default=None, hidden=True)
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(preset: str, data: str | None, iterations: int, row: str | None, json_file: Path | None) -> None:
    """Print seconds an iteration of a preset, with one thing changed at a time."""
    data = data or PRESETS[preset].data
    if row is not None:
        print_json({"seconds": measure(preset, data, ROWS[row], iterations)})
        return
    click.echo(f"{preset}, {iterations} iterations a row, {processor()}, torch {torch.__version__}, {revision()}")
    click.echo("| row | median s | fastest | slowest | against the preset |")
    click.echo("|---|---|---|---|---|")
    found: dict[str, list[float]] = {}
    for name, settings in tqdm(ROWS.items(), desc="training", unit="row", disable=None, leave=False):
        command = [sys.executable, __file__, "--preset", preset, "--data", data, "--iterations", str(iterations)]
        done = subprocess.run([*command, "--row", name], capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        seconds = found[name] = json.loads(done.stdout.splitlines()[-1])["seconds"]
        base = found["the preset, clips" if "frames=clip" in settings else "the preset, one frame"]
        ratio = median(seconds) / median(base)
        click.echo(f"| {name} | {median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} | {ratio:.2f} |")
    if json_file is not None:
        record = {"preset": preset, "rows": found, "machine": processor(), "revision": revision()}
        json_file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
