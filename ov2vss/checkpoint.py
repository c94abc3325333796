"""Checkpoints: safetensors and JSON, written to a temporary name and renamed.

A run folder::

    config.json               TrainConfig, classes, unseen classes, identity of the frozen text encoder
    log.csv                   loss, learning rate and seconds of every logged iteration
    step-00000500/            one checkpoint
        model.safetensors     trained weights and backbone statistics
        optimizer.safetensors what --resume needs
        state.json            iteration and scores
    best.json                 names the checkpoint with the best validation mIoU, when there was a validation
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ov2vss.clip_source import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss.identity import weights_sha256
from ov2vss.model import OV2VSS
from ov2vss.model.image_encoder import load_image_encoder
from ov2vss.presets import TrainConfig
from ov2vss.text import TextEncoder, build_text_encoder
from ov2vss_runtime.atomic_files import write_json

STEP = re.compile(r"step-(\d{8})$")


class RunConfig(BaseModel):
    """``config.json`` of a run: all that is needed to rebuild the model."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    train: TrainConfig
    classes: list[str]
    """Lines of the training vocabulary, synonyms after commas."""
    unseen: list[str] = []
    """Classes whose labels training did not see."""
    text_encoder_sha256: str
    image_encoder_sha256: str | None = None
    """Of a frozen image encoder, which is no part of the checkpoint."""

    def clip_source(self, weights: str | None = None, download: bool = False) -> ClipSource:
        """Where CLIP's weights come from: as given, else as in training."""
        if weights is not None and not self.train.model.has_clip:
            raise OV2VSSError("this model has no CLIP to give weights to", "leave out --clip-weights")
        return ClipSource(self.train.clip_weights if weights is None else weights, download)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk."""

    run: RunConfig
    folder: Path
    state: dict[str, Any]

    @property
    def weights_file(self) -> Path:
        return self.folder / "model.safetensors"

    def weights(self) -> dict[str, Tensor]:
        """Trained weights by name; those that are stored in half precision as float32."""
        return {k: v.float() if v.dtype == torch.float16 else v for k, v in _load_tensors(self.weights_file).items()}

    def optimizer(self) -> dict[str, Tensor]:
        return _load_tensors(self.folder / "optimizer.safetensors")

    def build(self, source: ClipSource | None = None) -> OV2VSS:
        """The trained model in evaluation mode, without its auxiliary head.

        Args:
            source: where the weights of a frozen CLIP come from; None: as in training.
        """
        model = OV2VSS(self.run.train.model)
        load_image_encoder(model.image_encoder, self.run.train.model, source or self.run.clip_source())
        expected = self.run.image_encoder_sha256
        if expected is not None and frozen_sha256(model.image_encoder) != expected:
            raise OV2VSSError(
                "the image encoder's weights are not those that the model was trained with (sha256 differs)",
                "give the same CLIP weights with --clip-weights FILE",
            )
        weights = {k: v for k, v in self.weights().items() if not k.startswith("aux_head.")}
        try:
            model.load_trained_state(weights)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise OV2VSSError(
                f"{self.weights_file} does not fit its config.json ({first[:120]})",
                "use the checkpoint's own config.json",
            ) from None
        return model.eval()

    def text_encoder(self, source: ClipSource | None = None) -> TextEncoder:
        """The frozen text encoder of the run.

        Raises:
            OV2VSSError: what is installed is not what the model was trained with.
        """
        name = self.run.train.model.text_encoder
        encoder = build_text_encoder(self.run.train.model, source or self.run.clip_source())
        if encoder.identity() != self.run.text_encoder_sha256:
            cure = "give the same weights with --clip-weights FILE" if name == "clip" else "install the same version"
            raise OV2VSSError(f"the text encoder {name!r} is not the one of the training run (sha256 differs)", cure)
        return encoder


def frozen_sha256(module: nn.Module) -> str | None:
    """sha256 over the weights of a frozen module, None for one that is trained."""
    return weights_sha256(module) if getattr(module, "frozen", False) else None


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise OV2VSSError(f"{path} cannot be read ({error})", "restore the file or use another checkpoint") from None


def save(run: Path, step: int, model: dict[str, Tensor], optimizer: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write ``step-<step>`` of a run; older ones but the best are removed once it is complete."""
    target = run / f"step-{step:08d}"
    part = run / f"{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({k: v.detach().contiguous().cpu().clone() for k, v in model.items()}, part / "model.safetensors")
    save_file({k: v.detach().contiguous().cpu().clone() for k, v in optimizer.items()}, part / "optimizer.safetensors")
    write_json(part / "state.json", state | {"step": step})
    for file in part.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    if target.exists():
        shutil.rmtree(target)
    part.replace(target)
    best = _best(run).get("checkpoint")
    for other in _steps(run):
        if other != target and other.name != best:
            shutil.rmtree(other)
    return target


def mark_best(run: Path, step: int, miou: float) -> None:
    write_json(run / "best.json", {"checkpoint": f"step-{step:08d}", "miou": miou})


def _best(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "best.json").read_text())
    except (OSError, ValueError):
        return {}


def best_miou(run: Path) -> float:
    """Validation mIoU of the best checkpoint so far; -1 without one."""
    return _best(run).get("miou", -1.0)


def _steps(run: Path) -> list[Path]:
    return sorted(p for p in run.glob("step-*") if STEP.match(p.name) and (p / "state.json").is_file())


def find(path: str | Path, which: str = "best") -> Checkpoint:
    """The checkpoint that ``--ckpt`` names.

    Args:
        path: a run folder or one ``step-...`` folder in it.
        which: in a run folder, ``best`` (by validation, else the last) or ``last``.
    """
    path = Path(path)
    if not path.exists():
        raise OV2VSSError(f"checkpoint {path} does not exist", "give the folder that ov2vss-train printed")
    run = path.parent if STEP.match(path.resolve().name) else path
    config = run / "config.json"
    if not config.is_file():
        raise OV2VSSError(
            f"{run} is not a training run: it has no config.json", "give the folder of ov2vss-train --out"
        )
    try:
        parsed = RunConfig.model_validate_json(config.read_bytes())
    except (ValidationError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise OV2VSSError(f"{config} is not valid ({line})", "restore the file that ov2vss-train wrote") from None
    folder = path
    if run == path:
        steps = _steps(run)
        if not steps:
            raise OV2VSSError(f"{run} has no complete checkpoint yet", "let ov2vss-train run until its first save")
        best = _best(run).get("checkpoint") if which == "best" else None
        folder = next((s for s in steps if s.name == best), steps[-1])
    state = json.loads((folder / "state.json").read_text())
    return Checkpoint(parsed, folder, state)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimizer as named tensors (``<parameter index>.<name>``)."""
    flat: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            flat[f"{index}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Inverse of :func:`flatten_optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
