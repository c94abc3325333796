"""Everything that only a GPU can show, in one command and under ten minutes on one card.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --json gpu.json --part training       (the others are kept as they are in gpu.json)
    python benchmarks/gpu.py --device cpu --quick                  (a dry run of every part on a processor)

Parts, each written to the JSON file as soon as it is done, so that a run that was cut short goes on where it was:

    machine    card, driver, installed packages, and which backends load
    limits     measured peak of matrix products by precision, and of memory bandwidth
    gates      ``ov2vss-export --verify-only`` of every backend and precision that loads
    graphs     a bundle on every backend: ms by stage, frames a second, one and eight streams, nodes off the GPU
    torch      the torch model, eager and compiled: the same, and the copies between processor and GPU
    training   seconds an iteration in bf16 and in fp16 with its scaler, peak memory, finite weights, NCCL alone

What is not installed is skipped, and a part says so in its ``notes``. Random weights: speed means something, answers
do not.
"""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from gpu_graphs import gate_rows, graph_rows
from gpu_torch import copies, limits, model_rows, require_device
from gpu_training import training_rows
from machine import machine

from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.errors import OV2VSSError

PARTS = ("machine", "limits", "gates", "graphs", "torch", "training")
CLASSES = (20, 124)
STREAMS = (1, 8)


def about(device: str) -> dict[str, Any]:
    """Card, driver and packages, and what every backend says when it is tried."""
    from ov2vss_runtime.engines.backends import BACKENDS, status

    found: dict[str, Any] = {"backends": {name: status(name) for name in BACKENDS}} | machine()
    if device == "cuda":
        import torch

        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "capability": f"SM{card.major}{card.minor}",
            "memory_gib": card.total_memory / 2**30,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def parts(device: str, quick: bool, bundles: tuple[str, ...], cache: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What every part runs."""
    frames = 6 if quick else 60
    classes, streams = (CLASSES[:1], (1, 2)) if quick else (CLASSES, STREAMS)
    size = (128, 192) if quick else (480, 864)
    return {
        "machine": lambda: about(device),
        "limits": lambda: limits(device, 512 if quick else 8192),
        "gates": lambda: gate_rows(bundles),
        "graphs": lambda: graph_rows(bundles, classes, streams, frames),
        "torch": lambda: (
            model_rows(device, "ov2vss-r101" if not quick else "tiny", size, classes, streams, frames, cache)
            | copies(device, "tiny" if quick else "ov2vss-r101", size, cache)
        ),
        "training": lambda: training_rows(device, quick, cache),
    }


def line(row: dict[str, Any]) -> str:
    """One row of the printed table."""
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "stages_ms")


def show(name: str, result: dict[str, Any]) -> None:
    """The part as text: its rows, or its fields."""
    click.echo(f"== {name} ({result.get('seconds', 0.0):.0f} s)")
    for key, value in result.items():
        if key == "rows":
            for row in value:
                click.echo("  " + line(row))
                if row.get("stages_ms"):
                    click.echo("      " + ", ".join(f"{k} {v:.2f}" for k, v in row["stages_ms"].items()) + " ms")
        elif key == "notes":
            for note in value:
                click.echo(f"  note: {note}")
        elif key != "seconds":
            click.echo(f"  {key}: {value if not isinstance(value, dict) else json.dumps(value)}")


@click.command(context_settings=CONTEXT)
@click.option("--part", "wanted", multiple=True, type=click.Choice(PARTS), help="Run these parts again [default: all].")
@click.option("--json", "json_file", default=None, type=click.Path(path_type=Path), help="Where the record is kept.")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]))
@click.option("--quick", is_flag=True, help="Small sizes: a dry run, whose figures mean nothing.")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    default=(DEFAULT_BUNDLE,),
    show_default=True,
    help="Folders or built-in names.",
)
@click.option("--cache", default=None, type=click.Path(path_type=Path), help="Folder for random checkpoints.")
@program
def main(
    wanted: tuple[str, ...],
    json_file: Path | None,
    device: str,
    quick: bool,
    bundles: tuple[str, ...],
    cache: Path | None,
) -> None:
    """Measure and prove on one GPU what a processor cannot show."""
    require_device(device)
    record: dict[str, Any] = {"device": device, "quick": quick, "parts": {}}
    if json_file is not None and json_file.exists():
        try:
            kept = json.loads(json_file.read_text())
            done = kept["parts"]
        except (ValueError, KeyError):
            raise OV2VSSError(f"{json_file} is not a record of this script", "give another --json") from None
        if (kept.get("device"), kept.get("quick")) == (device, quick):
            record["parts"] = {k: v for k, v in done.items() if k not in wanted}
        else:
            raise OV2VSSError(f"{json_file} was measured with other options", "give another --json")
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, call in parts(device, quick, bundles, cache or Path(scratch)).items():
            if name in record["parts"] or (wanted and name not in wanted):
                continue
            began = time.perf_counter()
            try:
                result = call()
            except Exception as error:
                # One part that fails must not take the others' figures with it: device time is short.
                traceback.print_exc()
                failed.append(name)
                click.echo(f"== {name} failed: {type(error).__name__}: {error}", err=True)
                continue
            result["seconds"] = time.perf_counter() - began
            record["parts"][name] = result
            if json_file is not None:
                write_json(json_file, record)
            show(name, result)
    if failed:
        raise OV2VSSError(f"these parts failed: {', '.join(failed)}", "see above; the others are in the record")


if __name__ == "__main__":
    main()
