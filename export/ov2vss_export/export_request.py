"""What is exported, and how it appears: complete and verified, or not under its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ov2vss.checkpoint import Checkpoint
from ov2vss.clip_source import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.gates import Gate
from ov2vss_runtime.bundle.rollout import ROLLOUT
from ov2vss_runtime.bundle.vocabulary import Vocabulary


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        checkpoint: the trained model.
        vocabulary: the bundle's default words.
        out: folder to make.
        size: (H, W), multiples of 32.
        precisions: of ``fp32``, ``fp16``, ``int8``; fp32 is always there.
        text_weights: ``float32`` or ``int8`` (weight-only).
        calibrate: video for int8 ranges and for the parity gates; generated clips without one.
        data: labelled videos to compare mIoU on, in any layout of ``ov2vss-eval``.
        split: of ``data``.
        license_file: text that the weights are under; None: that which lies beside the checkpoint.
        replace_license: ``license_file`` may take the place of the checkpoint's own.
        card_file: Markdown that goes into the model card.
        allow_parity_failure: keep the bundle and record the failure.
        rollout: frames of the roll-out gate.
        clip: where the weights of a frozen CLIP come from; None: as in training.
        decoder_parts: also write the decoder in its two parts (see docs/bundle.md).
        store: ``fp16`` rounds the weights to half precision once and stores constants so; what can be made of the
            stored graphs when it is first used (int8 for TensorRT) is left out.
    """

    checkpoint: Checkpoint
    vocabulary: Vocabulary
    out: Path
    size: tuple[int, int]
    precisions: tuple[str, ...] = ("fp32",)
    text_weights: str = "float32"
    calibrate: Path | None = None
    data: str | None = None
    split: str = "test"
    license_file: Path | None = None
    replace_license: bool = False
    card_file: Path | None = None
    allow_parity_failure: bool = False
    rollout: int = ROLLOUT
    clip: ClipSource | None = None
    decoder_parts: bool = True
    store: Literal["fp32", "fp16"] = "fp32"


class GateError(OV2VSSError):
    """Gates failed.

    Args:
        gates: those of every variant, passed ones too.
        kept: where the bundle is.
    """

    def __init__(self, gates: dict[str, list[Gate]], kept: Path) -> None:
        self.gates = gates
        failed = [
            f"{gate.name} is {gate.value:.4g}, bound {gate.bound:g} ({variant}, {gate.detail})"
            for variant, found in gates.items()
            for gate in found
            if not gate.passed
        ]
        super().__init__(
            f"parity gate failed: {'; '.join(failed)}",
            f"report this; the bundle is kept as {kept}, and under its own name with --allow-parity-failure",
        )


def _kept(part: Path, out: Path) -> Path:
    """A bundle that failed, moved from its working folder to ``<out>.failed`` in the place of an earlier one."""
    kept = out.with_name(f"{out.name}.failed")
    shutil.rmtree(kept, ignore_errors=True)
    return part.rename(kept)


def in_one_piece(request: ExportRequest, write: Callable[[Path], dict[str, list[Gate]]]) -> dict[str, list[Gate]]:
    """Let ``write`` fill a folder, which appears as ``request.out`` only when all gates passed."""
    part = request.out.with_name(request.out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        gates = write(part)
        if not all(gate.passed for found in gates.values() for gate in found) and not request.allow_parity_failure:
            raise GateError(gates, _kept(part, request.out))
        part.rename(request.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return gates
