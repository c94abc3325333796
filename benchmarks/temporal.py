"""What time is worth: smoothing, key frames and live labels on real clips, every line beside what it must hold.

    python benchmarks/temporal.py --data ../shared/data --json benchmarks/results/temporal.json

``--data`` holds ``camvid`` and ``wide/davis`` (docs/temporal.md says what they are). The network runs once over each
clip; smoothing comes after it, so that it is measured on the same logits. ``--speed BUNDLE`` measures frames a second
with and without key frames instead, ``--cost`` what smoothing adds to a frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import machine
from temporal_runs import camvid, cost, curve, davis, live, speed

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.stream.segmenter import Segmenter


def lines(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What must hold: the line, the figures, whether it does."""
    rows: list[tuple[str, str, bool]] = []

    def gain(name: str, part: str, key: str) -> float:
        return float(found[name][part]["smooth"][key] - found[name][part]["plain"][key])

    bounds = {"val": (0.2, 0.7), "val, JPEG 8": (2.0, 6.0), "test": (-0.1, -100.0)}
    for name, (miou, vc8) in bounds.items():
        for part in found.get(name, {}):
            a, b = gain(name, part, "miou"), gain(name, part, "vc8")
            title = f"smoothing, CamVid {name}, {'all frames' if part == 'all' else f'frames {part}'}"
            base = found[name][part]["plain"]
            text = f"mIoU {base['miou']:.2f} {a:+.2f}, VC8 {base['vc8']:.2f} {b:+.2f}"
            rows.append((title, text, a >= miou and b >= vc8))
    if "davis" in found:
        d = found["davis"]
        text = f"mean {d['plain']:.2f} -> {d['smooth']:.2f}, worst clip {d['worst'][0]} {d['worst'][1]:+.2f}"
        rows.append(("smoothing, DAVIS val", text, d["smooth"] >= d["plain"] and d["worst"][1] >= -2))
    if "curve" in found:
        c, top = found["curve"], found["curve"]["1"]["miou"]
        for key, bound in (("3", 1.2), ("5", 3.0)):
            if key in c:
                rows.append((f"key frames, K = {key}", f"{c[key]['miou'] - top:+.2f}", c[key]["miou"] >= top - bound))
        if "auto" in c:
            fixed = sorted((row["seen"], row["miou"]) for key, row in c.items() if key != "auto")
            there = float(np.interp(c["auto"]["seen"], *zip(*fixed, strict=True)))
            text = f"{c['auto']['miou'] - top:+.2f} with {c['auto']['seen']:.0%} seen; the curve {there - top:+.2f}"
            rows.append(("key frames, auto", text, c["auto"]["miou"] >= there))
    if "live" in found:
        x = found["live"]
        text = f"{x['out']} of {x['frames']} out, age {x['age'][0]:.1f} (most {x['age'][1]}), "
        text += f"mIoU {x['moved']['miou']:.2f} moved, {x['held']['miou']:.2f} held"
        rows.append(
            ("live, 25 fps, model at 3", text, x["out"] == x["frames"] and x["moved"]["miou"] > x["held"]["miou"])
        )
    for name, bound in (("352x640, 20 words", 4.0), ("480x864, 124 words", 8.0)):
        if name in found.get("cost", {}):
            added = found["cost"][name]["added"]
            rows.append((f"smoothing adds, {name}", f"{added:.2f} ms", added <= bound))
    for row in found.get("speed", []):
        text = f"{row['fps']:.1f} -> {row['fps with key frames']:.1f} fps, {row['factor']:.2f} times"
        rows.append((f"{row['bundle']}, {row['backend']} {row['precision']}, K = {row['keyframes']}", text, True))
    return rows


@click.command(context_settings=CONTEXT)
@click.option("--data", default=None, type=click.Path(path_type=Path, exists=True), help="Folder of camvid and wide.")
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True)
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--threads", default=None, type=click.IntRange(1))
@click.option("--clips", default=None, type=click.IntRange(1), help="So many clips of DAVIS only.")
@click.option("--only", multiple=True, type=click.Choice(["val", "jpeg", "test", "davis", "curve", "live", "cost"]))
@click.option("--speed", "speeds", multiple=True, help="Bundle to time with key frames; again for more.")
@click.option("--keyframes", default=5, show_default=True, type=click.IntRange(2), help="Of --speed.")
@click.option("--words", default=None, help="Of --speed [default: the bundle's].")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Of --speed.")
@click.option("--json", "json_file", default=None, type=click.Path(path_type=Path))
@program
def main(
    data: Path | None,
    bundle: str,
    backend: str,
    precision: str,
    threads: int | None,
    clips: int | None,
    only: tuple[str, ...],
    speeds: tuple[str, ...],
    keyframes: int,
    words: str | None,
    rounds: int,
    json_file: Path | None,
) -> None:
    """Measure propagation in time and print every line that must hold."""
    wanted = set(only) or ({"val", "jpeg", "test", "davis", "curve", "live", "cost"} if data else {"cost"})
    if speeds and not only:
        wanted = set()
    if data is None and wanted - {"cost"}:
        raise click.UsageError("--data is needed for all but --speed and --only cost")
    found: dict[str, Any] = {}
    if data is not None and wanted - {"cost"}:
        segmenter = Segmenter.load(bundle, backend, precision, threads)
        street, objects = data / "camvid", data / "wide" / "davis"
        if "val" in wanted:
            found["val"] = camvid(segmenter, street, "val", None)
        if "jpeg" in wanted:
            found["val, JPEG 8"] = camvid(segmenter, street, "val", None, 8)
        if "test" in wanted:
            found["test"] = camvid(segmenter, street, "test", 1)
        if "davis" in wanted:
            found["davis"] = davis(segmenter, objects, clips)
        if "curve" in wanted:
            found["curve"] = curve(segmenter, street, [1, 2, 3, 4, 5, 8, "auto"])
        if "live" in wanted:
            found["live"] = live(segmenter, street)
    if "cost" in wanted:
        found["cost"] = {
            "352x640, 20 words": cost((352, 640), 20, threads or 2),
            "480x864, 124 words": cost((480, 864), 124, threads or 2),
        }
    found["speed"] = [speed(name, backend, precision, keyframes, words, rounds) for name in speeds]
    rows = lines(found)
    click.echo("| line | figures | holds |\n|---|---|---|")
    for title, text, holds in rows:
        click.echo(f"| {title} | {text} | {'yes' if holds else 'NO'} |")
    for key, row in found.get("curve", {}).items():
        thin = ", ".join(f"{name} {100 * value:.1f}" for name, value in row["per_class"].items() if value is not None)
        click.echo(f"K = {key}: network {row['seen']:.0%}, mIoU {row['miou']:.2f}, VC8 {row['vc8']:.2f}; {thin}")
    if json_file is not None:
        whole = {"script": "temporal", "bundle": bundle, "backend": backend, "precision": precision}
        whole |= {"found": found, "lines": rows, "machine": machine()}
        json_file.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
