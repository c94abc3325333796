"""Where a training begins: at ImageNet's weights, or, with ``--init``, at a finished run; and at which frame size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ov2vss import checkpoint
from ov2vss.checkpoint import Checkpoint
from ov2vss.data import VideoSet, open_videos
from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS
from ov2vss.model.config import ModelConfig
from ov2vss.presets import FINE_TUNING, PRESETS, TrainConfig, configure, named_preset

CLIP_PREFIX = "clip:"
FREE_SETTINGS = ("templates", "gap", "freeze_norm")
"""Fields of a model that may differ from those of the run it starts from: no weight depends on them."""
ADDED = {"local_memory": "memory."}
"""Parts that may be added to the model of a run, where it has none: they begin at their own initial weights, which
change nothing. Setting, and the beginning of the names of its weights."""
STREET = "lite"
"""The preset with the words and templates of streets; runs of it are gone on with as ``lite-any``."""


@dataclass(frozen=True)
class RunStart:
    """``--init RUN`` or ``--init RUN/step-...``: the weights of a training."""

    path: Path


@dataclass(frozen=True)
class ClipStart:
    """``--init clip:MODEL/TAG``: an untrained model around one of open_clip's."""

    model: str
    tag: str


def parse_init(text: str) -> RunStart | ClipStart:
    """What ``--init`` names: a run, one of its checkpoints, or ``clip:MODEL/TAG``."""
    if not text.startswith(CLIP_PREFIX):
        return RunStart(Path(text))
    model, slash, tag = text.removeprefix(CLIP_PREFIX).partition("/")
    if not (model and slash and tag):
        raise OV2VSSError(f"--init {text} names no CLIP", "write clip:MODEL/TAG, for example clip:ViT-B-16/openai")
    return ClipStart(model, tag)


def start_from(text: str, preset: str | None) -> TrainConfig:
    """The settings that ``--init`` stands for, before ``--set``.

    The network is the one of the run. Without a preset, a run of ``lite`` is gone on with by the short schedule
    :data:`ov2vss.presets.FINE_TUNING` of ``lite-any``, and any other run with its own settings; a preset that is named
    keeps its schedule.

    Raises:
        OV2VSSError: there is no such run, or the preset makes another network.
    """
    start = parse_init(text)
    if isinstance(start, ClipStart):
        raise OV2VSSError(
            f"--init {text}: a training cannot start from CLIP alone yet",
            "use --preset ov2vss-r101 --set model.clip_model=MODEL --set model.clip_pretrained=TAG",
        )
    found = checkpoint.find(start.path)
    own = found.run.train
    if preset is not None:
        base = named_preset(preset)
        if differing := _differing(base.model, own.model):
            raise OV2VSSError(
                f"--preset {preset} makes another network than {text} (different: {', '.join(differing)})",
                "leave --preset out",
            )
    elif own.preset in (STREET, f"{STREET}-any"):
        base = PRESETS[f"{STREET}-any"].model_copy(update=FINE_TUNING)
    else:
        base = own
    model = own.model.model_copy(update={name: getattr(base.model, name) for name in FREE_SETTINGS})
    return base.model_copy(update={"model": model, "init": str(found.folder.resolve()), "data": ""})


def further(last: Checkpoint, overrides: list[str]) -> TrainConfig:
    """The settings of a run to go on with; ``iterations=N`` makes it longer.

    The learning rate is that of the longer schedule from there on: a run that had ended, at a rate of zero, warms up
    no more and decays to zero anew.
    """
    own = last.run.train
    config = configure(own, overrides)
    if config.iterations < last.state["step"]:
        raise OV2VSSError(
            f"iterations={config.iterations}: {last.folder} is already at {last.state['step']}", "give a larger number"
        )
    return config


def _differing(one: ModelConfig, other: ModelConfig) -> list[str]:
    """Fields of a model ``one`` that make another network than those of ``other``."""
    a, b = one.model_dump(exclude=set(FREE_SETTINGS)), other.model_dump(exclude=set(FREE_SETTINGS))
    return [name for name in a if a[name] != b[name] and not (name in ADDED and a[name])]


def load_start(model: OV2VSS, config: TrainConfig, text_encoder_sha256: str) -> Checkpoint:
    """Fill a new model with the weights of ``config.init``; the auxiliary head, which belongs to the classes of one
    data set, stays as it is.

    Raises:
        OV2VSSError: the run's network or its text encoder is another one.
    """
    found = checkpoint.find(config.init)
    if differing := _differing(config.model, found.run.train.model):
        raise OV2VSSError(
            f"the model is not that of {config.init} (different: {', '.join(differing)})",
            "do not change these fields with --set when you use --init",
        )
    if found.run.text_encoder_sha256 != text_encoder_sha256:
        raise OV2VSSError(
            f"{config.init} was trained with another text encoder (sha256 differs)", "install the same version"
        )
    own = found.run.train.model
    added = tuple(prefix for name, prefix in ADDED.items() if not getattr(own, name))
    kept = {k: v for k, v in model.trained_state().items() if k.startswith(("aux_head.", *added))}
    weights = {k: v for k, v in found.weights().items() if not k.startswith("aux_head.")}
    try:
        with torch.no_grad():
            model.load_trained_state(weights | kept)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:160]
        raise OV2VSSError(f"{found.weights_file} does not fit its config.json ({line})", "use a whole run") from None
    return found


def fit_frames(config: TrainConfig, videos: VideoSet | None = None) -> TrainConfig:
    """The same settings with ``size`` and ``crop`` for the aspect of the training videos, at about the same area.

    The crop keeps its share of the longer side.
    """
    videos = videos or open_videos(config.data, "train")
    shapes = [videos.frame(v, 0).shape for v in range(0, len(videos.videos), max(1, len(videos.videos) // 5))]
    aspect = sorted(w / h for h, w, _ in shapes)[len(shapes) // 2]
    size = nearest_size(config.size[0] * config.size[1], aspect)
    share = max(config.crop) / max(config.size)
    crop = tuple(max(64, round(side * share / 32) * 32) if side == max(size) else side for side in size)
    return config.model_copy(update={"size": size, "crop": crop})


def nearest_size(area: int, aspect: float) -> tuple[int, int]:
    """Of the sizes (H, W) in multiples of 32 the one that stretches least, with an area that is not far from ``area``.

    >>> nearest_size(352 * 480, 16 / 9), nearest_size(352 * 480, 4 / 3), nearest_size(352 * 480, 9 / 16)
    ((288, 512), (352, 480), (512, 288))
    """
    sides = range(64, 2049, 32)

    def cost(size: tuple[int, int]) -> float:
        h, w = size
        return abs(math.log(w / h / aspect)) + 0.25 * abs(math.log(h * w / area))

    return min(((h, w) for h in sides for w in sides if area / 2 < h * w < 2 * area), key=cost)
