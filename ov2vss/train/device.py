"""What a run computes on, and in which precision."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from ov2vss.errors import OV2VSSError
from ov2vss.presets import TrainConfig

log = logging.getLogger("ov2vss")


def make_fabric(config: TrainConfig) -> Fabric:
    """One device, or, under ``torchrun``, one per process with gradients averaged (DDP)."""
    if config.precision == "16-mixed" and not torch.cuda.is_available():
        raise OV2VSSError("precision=16-mixed needs a CUDA GPU, and there is none", "set precision=bf16-mixed")
    precision = config.precision
    if precision == "bf16-mixed" and not has_fast_bf16():
        log.info("computing in float32: this processor has no bfloat16 instructions and would be slower with it")
        precision = "32-true"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Fabric(accelerator="auto", devices=1, precision=precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    # Only the auxiliary head can be without a gradient.
    strategy = DDPStrategy(find_unused_parameters=not config.beta)
    return Fabric(accelerator="auto", devices=local, num_nodes=world // local, strategy=strategy, precision=precision)


def has_fast_bf16() -> bool:
    """Whether a GPU is there, or a processor with instructions for bfloat16; without them it takes seven times as long
    as float32."""
    if torch.cuda.is_available():
        return True
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found.get("architecture") != "x86_64" or bool(found.get("avx512_bf16") or found.get("amx_bf16"))
