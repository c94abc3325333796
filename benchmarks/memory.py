"""Memory of a run over many frames: it must not grow with the length of the stream.

    python benchmarks/memory.py --frames 10000 --plot memory.png --json memory.json

A clip is looped through the whole of ``ov2vss-run`` (reading ahead, network, labels, overlay, encoding, JSON Lines),
and the resident memory of the process is read every few frames. Linux only. Exit code 1 if it grew by more than
``--bound`` MB after the first ``--settle`` frames.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import machine, processor
from tqdm import tqdm
from workers import drifting

from ov2vss_runtime.bundle.bundle import DEFAULT_BUNDLE
from ov2vss_runtime.console import CONTEXT, program
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.outputs.targets import Targets
from ov2vss_runtime.stream.runner import run
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import StreamOptions
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.source import FrameSource, Source, VideoFrame


class Looped(FrameSource):
    """A source again and again; ``watch`` is called with the number of every frame."""

    def __init__(self, source: Source, frames: int, watch) -> None:
        self.source, self.frames, self._watch = source, frames, watch
        self.name, self.height, self.width = source.name, source.height, source.width
        self.time_base, self.rate = 1 / source.rate, source.rate

    def __iter__(self) -> Iterator[VideoFrame]:
        count = 0
        while count < self.frames:
            for frame in self.source:
                if count == self.frames:
                    return
                self._watch(count)
                yield replace(frame, pts=count, time=float(count / self.rate))
                count += 1


class Generated(FrameSource):
    """Drifting random pictures, for machines without a video."""

    def __init__(self) -> None:
        from fractions import Fraction

        self.name, self.rate, self.time_base = "generated", Fraction(25), Fraction(1, 25)
        self.pictures = drifting((540, 960))
        self.height, self.width = 540, 960

    def __iter__(self) -> Iterator[VideoFrame]:
        for index, rgb in enumerate(self.pictures):
            yield VideoFrame(rgb, index, index / 25)


def resident_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def plot(points: np.ndarray, settle: int, title: str, path: Path) -> None:
    """Memory against frames as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.5))
    axes.plot(points[:, 0], points[:, 1], linewidth=1)
    axes.axvline(settle, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="frames", ylabel="resident memory, MB", ylim=(0, None), title=title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@click.command(context_settings=CONTEXT)
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Bundle folder, or name of a built-in one.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--video", default=None, help="Clip to loop [default: generated pictures].")
@click.option("--frames", default=10_000, show_default=True, type=click.IntRange(20))
@click.option("--settle", default=200, show_default=True, type=click.IntRange(10), help="Frames before growth counts.")
@click.option("--bound", default=20.0, show_default=True, help="Largest growth after them, in MB.")
@click.option("--live", is_flag=True, help="Play the clip by the clock, and label the newest frame in the background.")
@click.option("--slow", default=0.0, show_default=True, help="With --live: seconds that the model takes at least.")
@click.option("--plot", "plot_file", default=None, type=click.Path(path_type=Path), help="Write a PNG (matplotlib).")
@click.option(
    "--json", "json_file", default=None, type=click.Path(path_type=Path), help="Also write the figures to FILE."
)
@program
def main(
    bundle: str,
    backend: str,
    precision: str,
    video: str | None,
    frames: int,
    settle: int,
    bound: float,
    live: bool,
    slow: float,
    plot_file: Path | None,
    json_file: Path | None,
) -> None:
    """Run a looped clip and watch the memory of the process."""
    points: list[tuple[int, float]] = []
    bar = tqdm(total=frames, desc="memory", unit="frame", disable=None, leave=False)

    def watch(count: int) -> None:
        bar.update()
        if count % 10 == 0:
            points.append((count, resident_mb()))

    source = Looped(open_source(video) if video else Generated(), frames, watch)
    segmenter = Segmenter.load(bundle, backend, precision)
    if slow:
        backbone = segmenter.engine.backbone

        def slowed(frame: Any) -> Any:
            began = time.monotonic()
            found = backbone(frame)
            time.sleep(max(0.0, slow - (time.monotonic() - began)))
            return found

        segmenter.engine.backbone = slowed  # type: ignore[method-assign]
    options = StreamOptions(confidence=True, reset_on_cut=True)
    realtime: Any = "async" if live else None
    stream = segmenter.stream(source, distant="reservoir", options=options, realtime=realtime, queue=25)
    with tempfile.TemporaryDirectory() as folder:
        targets = Targets(video=Path(folder) / "out.mp4", jsonl=Path(folder) / "out.jsonl")
        began = time.perf_counter()
        report = run(stream, targets)
        seconds = time.perf_counter() - began
    bar.close()
    found = np.asarray(points)
    base, last = (float(np.median(part)) for part in (found[found[:, 0] >= settle, 1][:10], found[-10:, 1]))
    peak = float(found[found[:, 0] >= settle, 1].max())
    title = f"{stream.segmenter.bundle.manifest.name}, {backend} {precision}, {source.width}x{source.height}"
    click.echo(f"{title}: {report['frames']} frames in {seconds:.0f} s on {processor()}")
    if live:
        age, dropped = report["label_age"], report["dropped"]
        click.echo(f"labels {age['mean']:.1f} frames old, {age['most']} at most; {dropped} frames dropped")
    click.echo(f"{base:.1f} MB after {settle} frames, {last:.1f} MB at the end, {peak:.1f} MB at most")
    if plot_file is not None:
        plot(found, settle, f"{title}, {frames} frames", plot_file)
    if json_file is not None:
        record = {"title": title, "frames": frames, "settle": settle, "points": points, "growth_mb": last - base}
        record |= {"script": "memory", "machine": machine()}
        json_file.write_text(json.dumps(record) + "\n")
    if last - base > bound:
        raise OV2VSSError(f"memory grew by {last - base:.1f} MB", "report this with the plot")


if __name__ == "__main__":
    main()
