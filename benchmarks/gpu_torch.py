"""The torch model on a GPU: peaks of the card, milliseconds by stage, and what is copied between processor and card."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from untrained import write_untrained
from workers import drifting

from ov2vss import checkpoint
from ov2vss.torch_engine import TorchEngine
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.errors import OV2VSSError
from ov2vss_runtime.stream.stream import Stream

PRECISIONS = {"fp32": None, "tf32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What matrix products are computed in; fp32 and tf32 differ by a switch of the library."""
STAGES = ("backbone", "step", "labels")


def require_device(device: str) -> None:
    """An OV2VSSError where ``device`` is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise OV2VSSError("torch sees no NVIDIA GPU", "run it where there is one, or dry-run it with --device cpu")


@contextmanager
def computing_in(precision: str, device: str) -> Iterator[None]:
    """Autocast, and TF32 only where it is asked for."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    kind = PRECISIONS[precision]
    try:
        with torch.autocast(device, dtype=kind or torch.bfloat16, enabled=kind is not None):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def clock(device: str) -> Callable[[Callable[[], Any]], tuple[Any, float]]:
    """Times a call: with CUDA events on the card's own stream, or by the wall clock."""
    if device == "cpu":

        def wall(call: Callable[[], Any]) -> tuple[Any, float]:
            began = time.perf_counter()
            value = call()
            return value, 1000 * (time.perf_counter() - began)

        return wall

    def events(call: Callable[[], Any]) -> tuple[Any, float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        value = call()
        end.record()
        end.synchronize()
        return value, start.elapsed_time(end)

    return events


def limits(device: str, side: int) -> dict[str, Any]:
    """Largest rate of square products in TFLOP/s by precision, and of a copy on the card in GB/s, read and written."""
    timed, rows = clock(device), []
    for precision, kind in PRECISIONS.items():
        with computing_in(precision if kind is None else "fp32", device):
            left, right = (torch.randn(side, side, device=device, dtype=kind or torch.float32) for _ in range(2))
            best = min(timed(lambda left=left, right=right: left @ right)[1] for _ in range(10))
        rows.append({"product": precision, "tflops": 2e-9 * side**3 / best})
    source = torch.empty(min(2**30, side * side * 64), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(timed(lambda: target.copy_(source))[1] for _ in range(10))
    return {"rows": rows, "copy_gb_s": 2e-6 * source.numel() / best}


class DeviceEngine(TorchEngine):
    """The torch engine with its label map on the device: the frame goes up, the labels come down, nothing else."""

    def __init__(self, model: Any, size: tuple[int, int], precision: str, device: str) -> None:
        super().__init__(model, size, None)  # type: ignore[arg-type]  # words come as embeddings
        self.can = replace(self.can, device_labels=True)
        self.precision, self.device = precision, device
        self.milliseconds: dict[str, list[float]] = {name: [] for name in STAGES}
        self._timed = clock(device)
        self._words: dict[int, tuple[Any, torch.Tensor]] = {}

    def _measured(self, stage: str, call: Callable[[], Any]) -> Any:
        with computing_in(self.precision, self.device):
            value, spent = self._timed(call)
        self.milliseconds[stage].append(spent)
        return value

    def backbone(self, frame: np.ndarray) -> Any:
        return self._measured("backbone", lambda: super(DeviceEngine, self).backbone(frame))

    def step(self, features: Any, context: Any, state: Any) -> Any:
        return self._measured("step", lambda: super(DeviceEngine, self).step(features, context, state))

    @torch.inference_mode()
    def labels(self, features: Any, guidance: Any, embeddings: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Labels ``[H, W]`` uint8; the same rule as the runtime's kernel."""
        return self._measured("labels", lambda: self._map(features, guidance, embeddings, size)).cpu().numpy()

    def _map(self, features: Any, guidance: Any, embeddings: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        held = self._words.get(id(embeddings))
        if held is None:
            held = self._words[id(embeddings)] = (embeddings, self._tensor(embeddings))
        dense, model = features.payload.dense, self.model
        memory = model.text_refinement.memory(dense) if model.config.vte else None
        logits = model.decode(guidance, dense, memory, held[1].to(self.parameter.dtype)).float()
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].argmax(0).to(torch.uint8)


def random_words(count: int, width: int) -> tuple[Vocabulary, np.ndarray]:
    """Names and random unit embeddings ``[count, width]``."""
    vectors = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Vocabulary.parse([f"thing {k}" for k in range(count)]), vectors


def random_model(preset: str, cache: Path, device: str) -> Any:
    """A preset with random weights on the device, without its text encoder."""
    overrides = [] if preset == "tiny" else ["model.text_encoder=words"]
    folder = write_untrained(preset, cache / f"{preset}-gpu", overrides=overrides)
    found = checkpoint.find(folder)
    return found.build(found.run.clip_source("random" if found.run.train.model.has_clip else None)).to(device).eval()


def summary(samples: list[float]) -> dict[str, float]:
    return {"p50_ms": float(np.percentile(samples, 50)), "p99_ms": float(np.percentile(samples, 99))}


def run_streams(engine: DeviceEngine, words: Any, streams: int, frames: list[np.ndarray], warm: int) -> dict[str, Any]:
    """Frames of several streams in turn on one engine: a row of the table."""
    vocabulary, embeddings = words
    opened = [Stream(engine, vocabulary, ("{}",), 3, "first", 1, embeddings) for _ in range(streams)]
    whole: list[float] = []
    for number, frame in enumerate(frames):
        if number == warm:
            whole, engine.milliseconds = [], {name: [] for name in STAGES}
            if engine.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
        for stream in opened:
            began = time.perf_counter()
            stream.step(frame)
            whole.append(1000 * (time.perf_counter() - began))
    row: dict[str, Any] = {"classes": len(vocabulary), "streams": streams} | summary(whole)
    row |= {"fps": 1000 / float(np.mean(whole))}
    row["stages_ms"] = {name: float(np.median(values)) for name, values in engine.milliseconds.items()}
    if engine.device == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return row


def model_rows(
    device: str,
    preset: str,
    size: tuple[int, int],
    classes: tuple[int, ...],
    streams: tuple[int, ...],
    count: int,
    cache: Path,
) -> dict[str, Any]:
    """The torch stream: eager in every precision, compiled in fp16; labels of fp16 and tf32 against fp32."""
    model = random_model(preset, cache, device)
    width, frames = model.config.embed_dim, drifting(size, count)
    rows, notes, wanted = [], [], None
    for kind, precisions in (("eager", ("fp32", "tf32", "fp16", "bf16")), ("compiled", ("fp16",))):
        if kind == "compiled":
            for name in ("encode", "step", "decode"):
                setattr(model, name, torch.compile(getattr(model, name)))
        for precision in precisions:
            engine = DeviceEngine(model, size, precision, device)
            try:
                for number in classes:
                    for together in streams if kind == "eager" else streams[:1]:
                        row = run_streams(engine, random_words(number, width), together, frames, count // 3)
                        rows.append({"model": preset, "torch": kind, "precision": precision} | row)
            except Exception as error:
                notes.append(f"{kind} {precision}: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            words, embeddings = random_words(classes[0], width)
            stream = Stream(engine, words, ("{}",), 3, "first", 1, embeddings)
            labels = np.stack([stream.step(frame).labels for frame in frames[:10]])
            wanted = labels if wanted is None else wanted
            rows[-1]["labels_as_fp32"] = float((labels == wanted).mean())
    return {"rows": rows, "notes": notes}


def copies(device: str, preset: str, size: tuple[int, int], cache: Path) -> dict[str, Any]:
    """Copies between processor and card during ten frames of a warm stream, from the profiler's trace, by kind."""
    model = random_model(preset, cache, device)
    engine, frames = DeviceEngine(model, size, "fp16" if device == "cuda" else "fp32", device), drifting(size, 24)
    words, embeddings = random_words(20, model.config.embed_dim)
    stream = Stream(engine, words, ("{}",), 3, "first", 1, embeddings)
    for frame in frames[:14]:
        stream.step(frame)
    if device == "cpu":
        return {"copies": "only on a GPU"}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        for frame in frames[14:]:
            stream.step(frame)
        torch.cuda.synchronize()
    found = {event.key: event.count for event in trace.key_averages() if "Memcpy" in event.key}
    return {"copies": found, "copies_frames": len(frames[14:]), "frame_bytes": frames[0].nbytes}
