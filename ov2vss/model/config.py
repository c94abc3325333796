"""What a model is made of, as one validated, JSON-serialisable record."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ov2vss.templates import imagenet_templates

STRIDES = (4, 8, 16, 32)
LATTICE_STRIDE = 32
POOL_RATIOS = (1, 2, 3, 4)
IMAGENET80 = ("imagenet80",)


class ModelConfig(BaseModel):
    """Architecture of one OV2VSS model.

    The defaults are the paper's model; the presets in :mod:`ov2vss.presets` change them. The fields from ``stcf`` on
    are the switches of the paper's ablations (Table III).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str = "resnet101"
    """Name of a timm network that offers ``features_only`` levels at strides 4, 8, 16 and 32."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Normalisation of RGB in [0, 1] before the backbone."""
    freeze_norm: bool = True
    """Keep the backbone's BatchNorm statistics and affine parameters fixed in training."""

    width: int = Field(256, ge=8)
    """C, the working width."""
    references: int = Field(3, ge=1)
    """n, the number of earlier frames that STCF looks at."""
    gap: int = Field(3, ge=1)
    """Distance between neighbouring references in processed frames."""
    regions: int = Field(80, ge=1)
    """R, the number of region vectors of the distant frame."""
    heads: int = Field(8, ge=1)

    image_encoder: Literal["dense-head", "clip"] = "dense-head"
    """Where the dense vision-language features F^V come from: a trained head on the backbone, or frozen CLIP."""
    dense_width: int = Field(128, ge=1)
    text_encoder: Literal["minilm", "words", "clip"] = "minilm"
    clip_model: str = "ViT-B-16"
    """open_clip's name of the CLIP architecture."""
    clip_pretrained: str = "openai"
    """open_clip's tag of its weights; it decides the activation and the normalisation, also with a weights file."""
    clip_tokens: int = Field(576, ge=1)
    """About how many patches CLIP sees of a frame (18 x 32 for 16:9)."""
    dense: Literal["value", "neighbour", "calibrated"] = "value"
    """How CLIP's image tower gives dense features: the paper's ``value``, or a recipe of :mod:`ov2vss.model.dense`."""
    embed_dim: int = Field(384, ge=1)
    """D, the width of the vision-language space."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """Prompts whose embeddings are averaged for one class; ``{}`` is replaced by the name. ``imagenet80`` alone stands
    for the 80 prompts that CLIP was evaluated with. Read them through :attr:`prompts`."""

    cost_width: int = Field(16, ge=1)
    """c, channels of the refined cost volume of one class."""
    position_width: int = Field(64, ge=1)
    decoder_width: int = Field(64, ge=1)
    decoder_groups: int = Field(4, ge=1)

    local_memory: bool = False
    """A recurrent memory at strides 8 and 16 beside STCF (:mod:`ov2vss.model.local_memory`)."""

    stcf: bool = True
    stcf_residual: bool = False
    rfe: bool = True
    rfe_residual: bool = False
    vte: bool = True
    refine_ffn: bool = True
    fusion: Literal["concat", "add"] = "concat"

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        for name, value in (("width", self.width), ("embed_dim", self.embed_dim)):
            if value % self.heads:
                raise ValueError(f"{name}={value} must be a multiple of heads={self.heads}")
        if self.local_memory and not (self.stcf and self.references >= 2):
            raise ValueError("local_memory=true needs stcf=true and references of at least 2")
        if min(self.std) <= 0:
            raise ValueError(f"std={','.join(f'{x:g}' for x in self.std)} must be above 0")
        if self.decoder_width % self.decoder_groups:
            raise ValueError(
                f"decoder_width={self.decoder_width} must be a multiple of decoder_groups={self.decoder_groups}"
            )
        if self.dense != "value" and self.image_encoder != "clip":
            raise ValueError(f"dense={self.dense} is about a frozen CLIP: it needs image_encoder=clip")
        if self.templates != IMAGENET80 and (not self.templates or any("{}" not in t for t in self.templates)):
            raise ValueError("every entry of templates must contain {} for the class name (or be imagenet80 alone)")
        return self

    @property
    def has_clip(self) -> bool:
        """Whether a part of the model is frozen CLIP."""
        return "clip" in (self.image_encoder, self.text_encoder)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The templates, named lists written out."""
        if self.templates == IMAGENET80:
            return imagenet_templates()
        return self.templates

    def ablations(self) -> list[str]:
        """Names of the switches that make this an ablated model (empty for a complete one)."""
        off = [name for name in ("stcf", "rfe", "vte") if not getattr(self, name)]
        return off
