"""Time and memory of training-free bundles, in turn in one process; the first one named is what the others are held to.

    python benchmarks/clip_speed.py --made build/clip-speed
    python benchmarks/clip_speed.py b16-value b16-neighbour --words 20,200 --backend onnxruntime,openvino

With ``--made`` it makes bundles of random weights in that folder (graphs alone, unproven; those that are there are
taken) and times each of ``--models`` on each engine in a process of its own, so that memory is that of one bundle on
one engine; then the model of ``--tiled`` in one pass and in windows, in turn, where the ratio is what windows cost.
Random weights are as fast as trained ones.

With bundles it times these: ``BUNDLE=336:112`` runs one in windows (``--tiles``). Prints a line for each bundle, engine
and number of words: milliseconds a frame (median), processor time a frame (all threads, median), the part of the frame
that is the backbone, the ratio of processor times to the first bundle's, and the largest memory of the process so far.
Processor time is the figure to compare where other programs run. Words are given as embeddings: the text graph is not
loaded, and takes memory once for as long as new words are typed.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

from ov2vss_runtime import Segmenter, StreamOptions
from ov2vss_runtime.bundle.rollout import synthetic_frames
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.stream.preprocess import parse_size
from ov2vss_runtime.stream.tiles import parse_tiles

HEADER = "| bundle | engine | words | ms a frame | CPU ms | backbone | ratio | MB |\n|---|---|---|---|---|---|---|---|"


def peak_mb() -> float:
    """Largest resident memory of this process; ``ru_maxrss`` would begin at the size of the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(
    bundles: tuple[str, ...], words: str, backend: str, precision: str, threads: int | None, rounds: int
) -> None:
    """Time bundles in turn: frame by frame, one after the other, so that a slow moment hits all of them."""
    print(HEADER)
    named = [name.partition("=") for name in bundles]
    tiles = [parse_tiles(text) if text else None for _, _, text in named]
    for engine in backend.split(","):
        loaded = [Segmenter.load(name, engine, precision, threads) for name, _, _ in named]
        for count in (int(n) for n in words.split(",")):
            names = Vocabulary(tuple((f"word {n}",) for n in range(count)))
            streams, frames = [], []
            for segmenter, windows in zip(loaded, tiles, strict=True):
                rows = np.random.RandomState(0).standard_normal((count, segmenter.bundle.manifest.vocabulary.embed_dim))
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                options = StreamOptions(tiles=windows)
                streams.append(segmenter.stream(None, names, embeddings=rows.astype(np.float32), options=options))
                size = segmenter.size if windows is None else (windows.short, round(windows.short * 16 / 9))
                frames.append(synthetic_frames(size, 4))
            seconds: list[list[float]] = [[] for _ in named]
            used: list[list[float]] = [[] for _ in named]
            for number in range(rounds + 2):
                for index, stream in enumerate(streams):
                    began, before = time.perf_counter(), time.process_time()
                    stream.step(frames[index][number % 4])
                    if number >= 2:
                        seconds[index].append(1000 * (time.perf_counter() - began))
                        used[index].append(1000 * (time.process_time() - before))
            for index, bundle in enumerate(bundles):
                backbone = streams[index].stages.per_frame_ms(rounds + 2)["backbone"]
                wall, processor = statistics.median(seconds[index]), statistics.median(used[index])
                ratio = statistics.median(a / max(b, 1e-9) for a, b in zip(used[index], used[0], strict=True))
                row = f"| {Path(bundle).name} | {engine} {precision} | {count} | {wall:.1f} | {processor:.1f} "
                print(f"{row}| {backbone:.1f} | {ratio:.3f} | {peak_mb():.0f} |", flush=True)


def made(root: Path, model: str, dense: str, wanted: tuple[int, int]) -> Path:
    """A bundle of random weights for frames of the size or a little less (:func:`fitted_size`); its graphs alone,
    compared with nothing. One that is there is kept."""
    out = root / f"{model}-{dense}-{wanted[0]}x{wanted[1]}"
    if out.is_dir():
        return out
    import open_clip
    import torch

    from ov2vss.clip import clip_settings
    from ov2vss.clip_source import ClipSource
    from ov2vss.model.dense import build_dense
    from ov2vss.model.training_free import TrainingFree
    from ov2vss.text.encoders import WordVectors
    from ov2vss_export.clip_writer import ClipExport, ClipRequest, fitted_size
    from ov2vss_export.export_request import in_one_piece
    from ov2vss_export.onnx_export import export_graph
    from ov2vss_runtime.bundle.gates import Gate

    size = fitted_size(model, wanted)

    class Graphs(ClipExport):
        def _identity(self) -> str:
            return "random"

        def run(self) -> dict[str, list[Gate]]:
            self.specs, self.checkpoint_sha256 = self._graphs(), self._identity()
            protos = {spec.name: export_graph(spec) for spec in self.specs}
            self._add_variant("fp32", "fp32", self._tagged(protos, "fp32"))
            self._write_others()
            self._open()
            return {}

    config, settings = open_clip.get_model_config(model), clip_settings(model, "")
    torch.manual_seed(0)
    visual = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"], True).eval()
    tower = build_dense(visual, dense, 1, settings.mean, settings.std)
    tower.tokens = (size[0] // tower.patch[0]) * (size[1] // tower.patch[1])
    request = ClipRequest(
        checkpoint=None,  # type: ignore[arg-type]  # there is none
        vocabulary=Vocabulary.parse("any"),
        out=out,
        size=size,
        model=model,
        tag="",
        source=ClipSource("random"),
        dense=dense,
    )
    network = TrainingFree(tower, size).eval()
    in_one_piece(request, lambda part: Graphs(request, part, network, WordVectors(config["embed_dim"])).run())
    return out


def apart(bundles: list[str], options: list[str]) -> None:
    """Print the rows of :func:`measure` in a process of its own."""
    command = [sys.executable, __file__, *bundles, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print("\n".join(done.stdout.splitlines()[2:]), flush=True)


@click.command()
@click.argument("bundles", nargs=-1)
@click.option(
    "--made", "root", type=click.Path(path_type=Path), help="Make bundles of random weights here, and time them."
)
@click.option("--models", default="ViT-B-32,ViT-B-16,ViT-L-14", show_default=True, help="open_clip's names (--made).")
@click.option("--dense", default="neighbour", show_default=True, help="Recipe (--made).")
@click.option("--size", default="288x512", show_default=True, help="Frames, HxW (--made).")
@click.option("--tiled", default="ViT-B-16", show_default=True, help="Model to time in windows; none: '' (--made).")
@click.option("--tiles", default="336:112", show_default=True, help="Windows of 224x224 (--made).")
@click.option("--words", default="20,200", show_default=True, help="Numbers of words.")
@click.option(
    "--backend", default=None, help="Engines, separated by commas [default: onnxruntime; --made: and openvino]."
)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--threads", default=None, type=click.IntRange(1), help="Processor threads [default: physical cores].")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(1), help="Frames of each that count.")
def main(
    bundles: tuple[str, ...],
    root: Path | None,
    models: str,
    dense: str,
    size: str,
    tiled: str,
    tiles: str,
    words: str,
    backend: str | None,
    precision: str,
    threads: int | None,
    rounds: int,
) -> None:
    """Time training-free bundles: those that are named, or bundles of random weights that are made (--made)."""
    if bool(bundles) == (root is not None):
        raise click.UsageError("name bundles, or give --made DIR")
    if root is None:
        measure(bundles, words, backend or "onnxruntime", precision, threads, rounds)
        return
    common = ["--words", words, "--precision", precision, "--rounds", str(rounds)]
    common += ["--threads", str(threads)] if threads else []
    frames = parse_size(size)
    found = {model: made(root, model, dense, frames) for model in models.split(",")}
    windows = made(root, tiled, dense, (224, 224)) if tiled else None
    whole = found.get(tiled) or (made(root, tiled, dense, frames) if tiled else None)
    print(HEADER, flush=True)
    for engine in (backend or "onnxruntime,openvino").split(","):
        for bundle in found.values():
            apart([str(bundle)], [*common, "--backend", engine])
        if windows is not None:
            apart([str(whole), f"{windows}={tiles}"], [*common, "--backend", engine])


if __name__ == "__main__":
    main()
