"""One process per configuration, taking turns: a slow moment of the machine hits all of them alike, none sees another's
memory, and one that fails says why while the others go on.

Packages are loaded in the process that needs them, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["stream", "torch", "compiled", "reference", "torch reference", "image method"]
STAGES = ("decode", "preprocess", "backbone", "step", "decoder", "labels", "overlay", "encode")
NETWORK = ("preprocess", "backbone", "step", "decoder", "labels")
"""Stages between a decoded frame and its labels."""


@dataclass(frozen=True)
class Configuration:
    """What a worker measures.

    Attributes:
        kind: a stream over exported graphs; the same stream in torch, eager or compiled; the authors' scheme on
            exported graphs or in torch; the image method.
        bundle: folder or built-in name; gives size, words and, to all but torch, the graphs.
        classes: number of words; None for the bundle's own.
        words: them, where they are not the bundle's own: listing nouns takes packages that a worker should not load.
        ckpt: what the bundle was exported from, for torch and the reference.
        video: what is segmented.
    """

    kind: Kind
    bundle: str
    backend: str = "onnxruntime"
    precision: str = "fp32"
    classes: int | None = None
    words: tuple[str, ...] | None = None
    threads: int | None = None
    ckpt: str | None = None
    video: str = ""
    cache: str = ""

    @property
    def title(self) -> str:
        engine = {"torch": "torch eager", "compiled": "torch.compile", "torch reference": "torch eager"}.get(
            self.kind, self.backend
        )
        what = {
            "reference": "authors' scheme, ",
            "torch reference": "authors' scheme, ",
            "image method": "image method, ",
        }
        return f"{what.get(self.kind, '')}{engine} {self.precision}"


class Measured:
    """A configuration, loaded: the object that lives in the worker."""

    def __init__(self, configuration: Configuration) -> None:
        from ov2vss_runtime.bundle.bundle import Bundle
        from ov2vss_runtime.bundle.vocabulary import Vocabulary
        from ov2vss_runtime.processors import available_threads
        from ov2vss_runtime.stream.segmenter import Segmenter
        from ov2vss_runtime.video.open_source import open_source

        self.c = c = configuration
        self.threads = c.threads or available_threads()
        self.bundle = Bundle.open(c.bundle)
        self.words = self.bundle.default_vocabulary if c.words is None else Vocabulary.parse(c.words)
        self.segmenter = None
        if c.kind in ("stream", "reference", "image method"):
            self.segmenter = Segmenter.load(self.bundle, c.backend, c.precision, self.threads)
        self.subject = self._subject()
        self.source = open_source(c.video)
        self.frames = self._frames()
        self._stack = ExitStack()
        self._outputs: list[Any] | None = None

    def _subject(self) -> Any:
        """Something with ``step(frame)`` and ``stages``."""
        c = self.c
        embeddings = self._embeddings()
        if c.kind == "stream":
            return self.segmenter.stream(None, self.words, embeddings=embeddings)
        if c.kind in ("reference", "image method"):
            from reference import AuthorsScheme, PerFrame, write_graphs

            folder = write_graphs(c.ckpt, self.segmenter.engine.size, Path(c.cache))
            scheme = AuthorsScheme if c.kind == "reference" else PerFrame
            return scheme(self.segmenter.engine, folder, embeddings)
        import torch

        from ov2vss import checkpoint
        from ov2vss.torch_engine import TorchEngine
        from ov2vss_runtime.stream.stream import Stream

        torch.set_num_threads(self.threads)
        size = tuple(self.bundle.manifest.preprocess.size)
        model = checkpoint.find(c.ckpt).build().eval()
        if c.kind == "torch reference":
            from reference import TorchScheme

            return TorchScheme(model, size, self.threads, embeddings)
        if c.kind == "compiled":
            # What the compiler thinks of caches that it looks through is of no use here.
            warnings.simplefilter("ignore")
            for name in ("encode", "fuse", "guidance", "decode"):
                setattr(model, name, torch.compile(getattr(model, name)))
            model.stcf.advance = torch.compile(model.stcf.advance)
        manifest = self.bundle.manifest
        engine = TorchEngine(model, size, None)
        return Stream(
            engine, self.words, manifest.vocabulary.templates, manifest.gap, "first", self.threads, embeddings
        )

    def _embeddings(self) -> np.ndarray:
        """Of the words, by the bundle's own text graph, for all kinds the same. Long lists get one prompt a word: the
        eighty of a paper preset would take longer than all that is measured."""
        from ov2vss_runtime.bundle.text import class_embeddings
        from ov2vss_runtime.stream.segmenter import Segmenter

        segmenter = self.segmenter or Segmenter.load(self.bundle, threads=self.threads)
        if self.c.words is None:
            return segmenter.stream(None, self.words).embeddings
        templates = self.bundle.manifest.vocabulary.templates[:1]
        return class_embeddings(segmenter.engine.encode_text, self.words, templates)

    def _frames(self) -> Iterator[Any]:
        while True:
            yield from self.source

    def about(self) -> dict[str, Any]:
        manifest = self.bundle.manifest
        info: dict[str, Any] = {
            "bundle": manifest.name,
            "preset": manifest.source.get("preset"),
            "size": list(manifest.preprocess.size),
            "classes": len(self.words),
            "threads": self.threads,
            "source": [self.source.height, self.source.width],
        }
        if self.c.kind == "stream":
            gates = manifest.variants[self.segmenter.variant].verified.get("gates", [])
            info["variant"] = self.segmenter.variant
            info["agreement_at_export"] = next(
                (g["value"] for g in gates if g["gate"] == "roll-out label agreement"), None
            )
            info["miou_difference_at_export"] = next((g["value"] for g in gates if "mIoU" in g["gate"]), None)
        return info

    def run(self, count: int) -> list[dict[str, float]]:
        """Milliseconds by stage, ``network`` (a decoded frame to its labels) and ``whole``, of the next frames."""
        return [self._one() for _ in range(count)]

    def _one(self) -> dict[str, float]:
        stages = self.subject.stages
        before, began = dict(stages.seconds), time.perf_counter()
        frame = next(self.frames)
        decoded = time.perf_counter()
        result = self.subject.step(frame.rgb)
        labelled = time.perf_counter()
        self.labels = getattr(result, "labels", result)
        if self.c.kind == "stream":
            self._write(result)
        ended = time.perf_counter()
        found = {name: 1000 * (stages.seconds[name] - before.get(name, 0.0)) for name in stages.seconds}
        found |= {"decode": 1000 * (decoded - began), "network": 1000 * (labelled - decoded)}
        return found | {"whole": 1000 * (ended - began)}

    def _write(self, result: Any) -> None:
        """Overlay and encode, as ``ov2vss-run`` does."""
        from dataclasses import replace

        from ov2vss_runtime.outputs.targets import Targets, open_outputs

        if self._outputs is None:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            targets = Targets(video=Path(folder) / "out.mp4")
            opened = open_outputs(targets, self.source, self.words.names, self.subject.stages)
            self._outputs, _ = self._stack.enter_context(opened)
        stamp = int(result.index / self.source.rate / self.source.time_base)
        for output in self._outputs:
            output.write(replace(result, pts=stamp))

    def program(self, count: int) -> float:
        """Frames a second of ``ov2vss-run --no-smooth``: reading, labelling and writing overlap."""
        from ov2vss_runtime.outputs.targets import Targets
        from ov2vss_runtime.stream.options import StreamOptions
        from ov2vss_runtime.stream.runner import run

        with tempfile.TemporaryDirectory() as folder:
            embeddings = self.subject.embeddings
            plain = StreamOptions(smooth=False)
            stream = self.segmenter.stream(self.c.video, self.words, embeddings=embeddings, options=plain, limit=count)
            return run(stream, Targets(video=Path(folder) / "out.mp4"))["fps"]

    def close(self) -> None:
        self._stack.close()


def word_list(own: list[str], count: int) -> Any:
    """``count`` distinct nouns, ``own`` first, then VSPW's classes and ImageNet's; without timm, which has those,
    invented names, which take the same time."""
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    words: dict[str, None] = dict.fromkeys(word.casefold() for word in own)
    if len(words) < count:
        for word in (*_nouns(), *(f"thing {k}" for k in range(count))):
            if len(words) == count:
                break
            words.setdefault(word.strip().casefold())
    return Vocabulary.parse(list(words)[:count])


def _nouns() -> Iterator[str]:
    """VSPW's classes and ImageNet's, where the packages that list them are installed."""
    try:
        from timm.data import ImageNetInfo

        from ov2vss.data.folder import VSPW_CLASSES
        from ov2vss_runtime.bundle.vocabulary import Vocabulary
    except ImportError:
        return
    yield from (name.replace("_", " ") for name in Vocabulary.from_file(VSPW_CLASSES).names)
    info = ImageNetInfo("imagenet-12k")
    yield from (info.index_to_description(k).split(",")[0] for k in range(info.num_classes()))


def peak_mb() -> float:
    """Peak resident memory of this process. Not ``ru_maxrss`` where it can be helped: that starts at the parent's size
    at the fork."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _serve(pipe: Any, configuration: Configuration) -> None:
    """The worker's loop: a method of :class:`Measured` and its arguments come in, what it returns goes out."""
    try:
        measured = Measured(configuration)
        pipe.send(("done", measured.about()))
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))
        return
    while (request := pipe.recv()) is not None:
        name, arguments = request
        try:
            value = measured.labels if name == "labels" else getattr(measured, name)(*arguments)
            pipe.send(("done", value))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))
    measured.close()
    pipe.send(("done", peak_mb()))


class Failed(Exception):
    """A worker could not do what it was asked."""


class Worker:
    """A configuration in a process of its own, from the other side."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, configuration), daemon=True)
        # torch and OpenMP read it when they are loaded.
        os.environ["OMP_NUM_THREADS"] = str(configuration.threads or os.cpu_count() or 1)
        self._process.start()
        other.close()
        self.about: dict[str, Any] = self._receive()
        self.samples: list[dict[str, float]] = []
        self.fps: list[float] = []

    def _receive(self) -> Any:
        try:
            status, value = self._pipe.recv()
        except EOFError:
            raise Failed("its process died") from None
        if status == "failed":
            raise Failed(value)
        return value

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of a method of :class:`Measured` in the worker."""
        self._pipe.send((name, arguments))
        return self._receive()

    def close(self) -> float:
        """End it; its peak resident memory in MB."""
        self._pipe.send(None)
        peak = self._receive()
        self._process.join()
        return peak

    def summary(self) -> dict[str, Any]:
        """Mean, percentiles and spread of what was sampled, in ms."""
        found: dict[str, Any] = {}
        for name in (*STAGES, "network", "whole"):
            values = np.array([s[name] for s in self.samples if name in s])
            if len(values):
                found[name] = {"mean": float(values.mean())}
                found[name] |= {f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 99)}
        return found


WARM_UP = 4
"""Frames of every row whose time does not count."""


def warm_up(workers: list[Worker]) -> dict[int, str]:
    """The first frames of every worker; their samples are there until :func:`take_turns` starts.

    Returns:
        What failed, by position.
    """
    failed: dict[int, str] = {}
    for number, worker in enumerate(workers):
        try:
            worker.samples = worker.call("run", WARM_UP)
        except Failed as error:
            failed[number] = str(error)
    return failed


def take_turns(workers: list[Worker], failed: dict[int, str], frames: int, rounds: int, program: int) -> None:
    """Let every worker do ``frames`` frames a round, and at the end of a round ``program`` frames of ``ov2vss-run``.

    Args:
        failed: workers that are asked nothing more, by position, and why; those that fail on the way join them.
    """
    from tqdm import tqdm

    for worker in workers:
        worker.samples = []
    with tqdm(total=rounds * len(workers), desc="measure", unit="turn", disable=None, leave=False) as bar:
        for _ in range(rounds):
            for number, worker in enumerate(workers):
                bar.update()
                if number in failed:
                    continue
                try:
                    worker.samples += worker.call("run", frames)
                    if program and worker.configuration.kind == "stream":
                        worker.fps.append(worker.call("program", program))
                except Failed as error:
                    failed[number] = str(error)


def write_clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """A generated clip as H.264: a smooth picture that drifts."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = Fraction(1, 25)
        pictures = drifting(size)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(pictures[index % len(pictures)], format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def drifting(size: tuple[int, int], count: int = 32) -> list[np.ndarray]:
    """Smooth random RGB frames ``[h, w, 3]`` uint8 that drift."""
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3)).astype(np.uint8)
    whole = cv2.resize(coarse, (size[1] + count, size[0]), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(whole[:, t : t + size[1]]) for t in range(count)]
