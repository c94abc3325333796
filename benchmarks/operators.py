"""Where the time of a frame goes, operator by operator: what to look at when a bound is missed.

    python benchmarks/operators.py
    python benchmarks/operators.py --bundle my-bundle --backend openvino --precision bf16 --classes 124

Each graph is run alone on inputs of the right size, first without a profiler (the median), then with it. "rate" is the
operations of convolutions and matrix products (see ``limit.py``) a second; "of peak" their share of the measured peak.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from limit import FRAME_GRAPHS, bundle_operations, peaks
from machine import machine

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE, Bundle
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.processors import available_threads

TOP = 12
"""Kinds of operators that are printed of a graph."""
RUNS = 10


def feeds(bundle: Bundle, variant: str, classes: int) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of the graphs of a frame; what they hold does not change the time."""
    random, found = np.random.default_rng(0), {}
    for name in FRAME_GRAPHS:
        found[name] = {}
        for info in bundle.manifest.variants[variant].graphs[name].inputs:
            shape = [classes if axis == "N" else int(axis) for axis in info.shape]
            values = random.integers(0, 256, shape) if info.dtype == "uint8" else random.standard_normal(shape) / 10
            found[name][info.name] = values.astype(info.dtype)
    return found


def on_onnxruntime(
    path: Path, feed: dict[str, np.ndarray], threads: int, folder: str
) -> tuple[float, dict[str, float]]:
    """Median ms of a run, and ms by operator."""
    import onnxruntime as ort

    def session(profile: bool) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = threads, profile
        options.profile_file_prefix = f"{folder}/profile"
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    plain, profiled = session(False), session(True)
    middle = median_ms(lambda: plain.run(None, feed))
    for _ in range(RUNS):
        profiled.run(None, feed)
    sums: dict[str, float] = defaultdict(float)
    for event in json.loads(Path(profiled.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            sums[event["args"]["op_name"]] += event["dur"] / 1000 / RUNS
    return middle, sums


def on_openvino(
    path: Path, feed: dict[str, np.ndarray], threads: int, precision: str
) -> tuple[float, dict[str, float]]:
    """Median ms of a run, and ms by type of node and kernel."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    if "class_embeddings" in feed:
        model.reshape({"class_embeddings": list(feed["class_embeddings"].shape)})
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    options["INFERENCE_PRECISION_HINT"] = "bf16" if precision == "bf16" else "f32"
    request = core.compile_model(model, "CPU", options).create_infer_request()
    middle = median_ms(lambda: request.infer(feed, share_inputs=True, share_outputs=True))
    profiled = core.compile_model(model, "CPU", options | {"PERF_COUNT": True}).create_infer_request()
    sums: dict[str, float] = defaultdict(float)
    for _ in range(RUNS):
        profiled.infer(feed)
        for node in profiled.profiling_info:
            if node.real_time.total_seconds() > 0:
                sums[f"{node.node_type} {node.exec_type}"] += 1000 * node.real_time.total_seconds() / RUNS
    return middle, sums


def median_ms(call: Any) -> float:
    """Of :data:`RUNS` calls after two."""
    found = []
    for _ in range(RUNS + 2):
        began = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - began))
    return float(np.median(found[2:]))


@click.command(context_settings=CONTEXT)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option("--backend", default="onnxruntime", show_default=True, type=click.Choice(["onnxruntime", "openvino"]))
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "bf16", "int8"]))
@click.option(
    "--classes", default=16, show_default=True, type=click.IntRange(1), help="Classes in a run of the decoder."
)
@click.option(
    "--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: physical cores]."
)
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(bundle: str, backend: str, precision: str, classes: int, threads: int | None, json_file: Path | None) -> None:
    """Print the time of every kind of operator."""
    opened, threads = Bundle.open(bundle), threads or available_threads()
    if (backend, precision) == ("onnxruntime", "bf16"):
        raise click.UsageError("onnxruntime has no bf16 on processors")
    variant = opened.variant("fp32" if precision == "bf16" else precision, backend)
    counted, peak, graphs = bundle_operations(opened, variant, classes), peaks(threads), {}
    where = machine()
    click.echo(
        f"{opened.manifest.name}, {backend} {precision}, {classes} classes a run, {threads} threads, "
        f"{where['processor']}, revision {where['revision']}, {where['date']}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, feed in feeds(opened, variant, classes).items():
            path = opened.graph_file(variant, name)
            if backend == "onnxruntime":
                middle, sums = on_onnxruntime(path, feed, threads, folder)
            else:
                middle, sums = on_openvino(path, feed, threads, precision)
            rate = sum(counted[name].values()) / middle / 1e6
            share = rate / peak[precision][0] if precision in peak else None
            rows = sorted(sums.items(), key=lambda item: -item[1])
            graphs[name] = {
                "ms": middle,
                "operations": counted[name],
                "rate": rate,
                "share": share,
                "by_operator": rows,
            }
            click.echo(f"{name}: {middle:.2f} ms, rate {rate:.0f}e9" + (f", {share:.0%} of peak" if share else ""))
            for operator, ms in rows[:TOP]:
                click.echo(f"  {ms:9.2f} ms  {operator}")
    if json_file is not None:
        record = {"script": "operators", "bundle": opened.manifest.name, "backend": backend, "precision": precision}
        record |= {"classes": classes, "threads": threads, "peaks": peak, "graphs": graphs, "machine": where}
        json_file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
