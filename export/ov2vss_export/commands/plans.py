"""``--engine NAME --bundle BUNDLE``: plans for NVIDIA GPUs from the graphs of a finished bundle."""

from __future__ import annotations

import click

from ov2vss_export.commands.mode import Mode, Options
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.made import with_variant
from ov2vss_runtime.console import print_json
from ov2vss_runtime.engines.plans import Library


def run(options: Options) -> None:
    assert options.bundle is not None
    check_engine(options.engine, options.compute)
    build_plans(options, Bundle.open(options.bundle), options.as_json)


def build_plans(options: Options, bundle: Bundle, as_json: bool) -> None:
    """Build what ``--engine``, ``--compute`` and ``--precision`` ask for; plans that are there with the right key are
    kept."""
    from ov2vss_runtime.engines.cuda import gpu_capability
    from ov2vss_runtime.engines.plans import ensure_plans

    engine, compute = check_engine(options.engine, options.compute)
    target = compute or gpu_capability()
    plans = []
    for precision in options.precisions or ("fp32",):
        served = with_variant(bundle, "fp32" if precision == "tf32" else precision, "tensorrt")
        for graph, (file, built) in ensure_plans(served, precision, engine, target, options.plans).items():
            size = file.stat().st_size
            plans.append({"graph": graph, "precision": precision, "file": str(file), "bytes": size, "built": built})
            click.echo(f"{file}  {size / 1e6:.1f} MB{'' if built else '  (kept)'}")
    if as_json:
        print_json({"bundle": str(bundle.folder), "engine": engine, "plans": plans})


def check_engine(engine: Library | None, compute: str | None) -> tuple[Library, str | None]:
    """The engine and the capability to build for.

    Raises:
        click.UsageError: one of them without the other.
    """
    if engine is None or (engine == "tensorrt-rtx") != (compute is not None):
        raise click.UsageError("--engine tensorrt-rtx and --compute need each other (SM75 to SM121)")
    return engine, compute


MODE = Mode(
    asked_by="--engine with --bundle",
    asked=lambda options: options.engine is not None and options.ckpt is None and options.bundle is not None,
    takes=frozenset({"bundle", "engine", "plans", "compute", "precisions"}),
    run=run,
)
