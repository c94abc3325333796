"""Time of every stage of a bundle on this machine, with the parity that its export measured beside it.

    python benchmarks/latency.py
    python benchmarks/latency.py --bundle my-bundle --classes 124 --threads 2 --json latency.json
    python benchmarks/latency.py --backend openvino --precision bf16

Frames are generated (the time does not depend on what they show). The first ones are not counted. Percentiles are over
frames; fps is the inverse of the median total. Decoding and encoding are not part of it: ``ov2vss-run`` prints those.
"""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click
import cv2
import numpy as np
from machine import processor, revision
from tqdm import tqdm

from ov2vss_runtime.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.preprocess import parse_size
from ov2vss_runtime.segmenter import Segmenter

STAGES = ("preprocess", "backbone", "step", "decoder", "labels")
PERCENTILES = (50, 90, 99)
RING = 32
"""Different frames that are made before timing starts and used in turn."""


def make_frames(size: tuple[int, int]) -> list[np.ndarray]:
    """Smooth random RGB frames ``[h, w, 3]`` uint8 that drift."""
    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3)).astype(np.uint8)
    whole = cv2.resize(coarse, (size[1] + RING, size[0]), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(whole[:, t : t + size[1]]) for t in range(RING)]


def measure(stream, frames: list[np.ndarray], warm_up: int, count: int) -> dict[str, np.ndarray]:
    """Milliseconds per frame ``[count]`` of every stage and of the whole step."""
    samples: dict[str, list[float]] = {name: [] for name in (*STAGES, "total")}
    for index in tqdm(range(warm_up + count), desc="latency", unit="frame", disable=None, leave=False):
        before = dict(stream.stages.seconds)
        start = time.perf_counter()
        stream.step(frames[index % len(frames)])
        total = time.perf_counter() - start
        if index >= warm_up:
            for name in STAGES:
                samples[name].append(1000 * (stream.stages.seconds[name] - before.get(name, 0.0)))
            samples["total"].append(1000 * total)
    return {name: np.asarray(values) for name, values in samples.items()}


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "processor": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ov2vss": version("ov2vss"),
        **{name: version(name) for name in ("onnxruntime", "openvino") if find_spec(name)},
        "revision": revision(),
        "date": time.strftime("%Y-%m-%d"),
    }


@click.command(context_settings=CONTEXT)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option("--backend", default="onnxruntime", show_default=True, help="As of ov2vss-run.")
@click.option("--precision", default="fp32", show_default=True, help="As of ov2vss-run.")
@click.option(
    "--classes", default=None, type=click.IntRange(1, 10_000), help="Number of classes [default: the bundle's]."
)
@click.option("--source", default="540x960", show_default=True, metavar="HxW", help="Size of the video's frames.")
@click.option("--frames", default=100, show_default=True, type=click.IntRange(10, 100_000), help="Frames that count.")
@click.option("--threads", default=None, type=click.IntRange(1, 1024), help="Processor threads [default: all].")
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(
    bundle: str,
    backend: str,
    precision: str,
    classes: int | None,
    source: str,
    frames: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Print milliseconds per frame and stage of a bundle on this machine."""
    segmenter = Segmenter.load(bundle, backend, precision, threads)
    manifest = segmenter.bundle.manifest
    words = None if classes is None else [f"thing {k}" for k in range(classes)]
    stream = segmenter.stream(vocabulary=words)
    samples = measure(stream, make_frames(parse_size(source)), warm_up=10, count=frames)

    where, agreement = machine(), manifest.variants[segmenter.variant].verified["gates"]
    agreement = next(g["value"] for g in agreement if g["gate"] == "roll-out label agreement")
    height, width = segmenter.engine.size
    click.echo(
        f"{manifest.name}, {backend} {precision}, {height}x{width}, {len(stream.names)} classes, "
        f"{segmenter.threads} threads, {where['processor']}, revision {where['revision']}"
    )
    click.echo(f"{'ms a frame':<12}{'mean':>9}" + "".join(f"{f'p{p}':>9}" for p in PERCENTILES))
    figures = {}
    for name, values in samples.items():
        points = np.percentile(values, PERCENTILES)
        figures[name] = {"mean": float(values.mean())} | {
            f"p{p}": float(v) for p, v in zip(PERCENTILES, points, strict=True)
        }
        click.echo(f"{name:<12}{values.mean():>9.2f}" + "".join(f"{v:>9.2f}" for v in points))
    fps = 1000 / figures["total"]["p50"]
    outside = 1 - figures["backbone"]["p50"] / figures["total"]["p50"]
    click.echo(f"{fps:.1f} fps; {outside:.0%} of the time outside of the backbone")
    click.echo(f"label agreement with the trained model at export ({segmenter.variant}): {agreement:.5f}")
    if json_file is not None:
        record = {"bundle": manifest.name, "backend": backend, "precision": precision, "size": [height, width]}
        record |= {"classes": len(stream.names), "threads": segmenter.threads, "frames": frames, "fps": fps}
        record |= {"ms": figures, "label_agreement_at_export": agreement, "machine": where}
        json_file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
