"""Training on a GPU: seconds an iteration, whether gradients stay finite, peak memory, and one process of NCCL."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from ov2vss.presets import configure
from ov2vss.train.loop import Trainer

PRECISIONS = ("bf16-mixed", "16-mixed")


def settings(preset: str, precision: str, iterations: int, quick: bool) -> list[str]:
    """``--set`` of a measured run: random weights, generated clips, words that need no package."""
    found = [
        "backbone_weights=none",
        f"precision={precision}",
        f"iterations={iterations}",
        f"per_frame_iterations={iterations // 2}",
        "save_every=1000000",
        "validate_every=0",
        "warmup=2",
        "workers=0" if quick else "workers=4",
    ]
    if preset != "tiny":
        found += ["model.text_encoder=words", "hold_out_unseen=false"]
    if preset == "lite":
        found += ["wordings=", "negatives=0", "text_mixing=0"]
    return found


def measure(preset: str, precision: str, iterations: int, quick: bool, out: Path) -> dict[str, Any]:
    """One short training run on generated clips: a row of the table."""
    clip = "random" if preset.startswith("ov2vss") else None
    config = configure(preset, settings(preset, precision, iterations, quick), data="shapes", clip_weights=clip)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(config, out)
    seconds, losses, original = [], [], trainer._iterate

    def timed(*args: Any) -> Any:
        began = time.perf_counter()
        loss = original(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(float(loss) if not isinstance(loss, dict) else float(sum(loss.values())))
        return loss

    trainer._iterate = timed  # type: ignore[method-assign]
    trainer.fit()
    half = iterations // 2
    finite = all(bool(torch.isfinite(p).all()) for p in trainer.raw_model.parameters())
    row = {
        "model": preset,
        "precision": precision,
        "iterations": iterations,
        "batch": config.batch,
        "one_frame_s": median(seconds[2:half]),
        "clip_s": median(seconds[half + 1 :]),
        "weights_finite": finite,
        "last_loss": losses[-1],
    }
    if trainer.scaler is not None:
        row["loss_scale"] = float(trainer.scaler.get_scale())
    if torch.cuda.is_available():
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return row


@contextmanager
def one_process_group(backend: str) -> Iterator[None]:
    """A process group of this process alone, on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group(backend, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def group_row(device: str) -> dict[str, Any]:
    """Gradients of a model wrapped for several processes, in a group of one, against the same model alone."""
    backend = "nccl" if device == "cuda" else "gloo"
    torch.manual_seed(0)
    alone = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).to(device)
    data = torch.randn(16, 64, device=device)
    alone(data).square().mean().backward()
    wanted = [p.grad.clone() for p in alone.parameters()]
    alone.zero_grad()
    with one_process_group(backend):
        shared = nn.parallel.DistributedDataParallel(alone)
        shared(data).square().mean().backward()
        worst = max(float((p.grad - w).abs().max()) for p, w in zip(alone.parameters(), wanted, strict=True))
        total = torch.ones(1, device=device)
        torch.distributed.all_reduce(total)
    return {"process_group": backend, "processes": 1, "gradient_difference": worst, "sum_of_ones": float(total)}


def training_rows(device: str, quick: bool, cache: Path) -> dict[str, Any]:
    """``lite`` for 100 iterations and ``ov2vss-r101`` for 20, in bf16 and in fp16 with its scaler."""
    runs = [("tiny", 12)] if quick else [("lite", 100), ("ov2vss-r101", 20)]
    rows, notes = [], []
    for preset, iterations in runs:
        for precision in PRECISIONS:
            if precision == "16-mixed" and device == "cpu":
                notes.append("16-mixed: only on a GPU")
                continue
            try:
                rows.append(measure(preset, precision, iterations, quick, cache / f"train-{preset}-{precision}"))
            except Exception as error:
                notes.append(f"{preset} in {precision}: {type(error).__name__}: {str(error).splitlines()[0]}")
    rows.append(group_row(device))
    return {"rows": rows, "notes": notes}
