"""A published CLIP -> a training-free bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import open_clip
import torch

from ov2vss.clip import ClipSource, clip_settings, find_clip_weights, load_clip
from ov2vss.errors import OV2VSSError
from ov2vss.identity import weights_sha256
from ov2vss.model.dense import build_dense, check_recipe
from ov2vss.model.dense.siglip import SiglipDense
from ov2vss.model.training_free import AFFINITY_TEMPERATURE, RADIUS, SHARE, TEMPERATURE, TrainingFree
from ov2vss.templates import imagenet_templates
from ov2vss.text.clip_text import ClipText
from ov2vss.text.siglip_text import SiglipText, find_tokenizer
from ov2vss_export.bundle_writer import BundleExport
from ov2vss_export.clip_engine import ClipEngine, ClipFrames
from ov2vss_export.clip_graphs import clip_graphs
from ov2vss_export.export_request import ExportRequest, in_one_piece
from ov2vss_export.fp16 import to_fp16
from ov2vss_export.graphs import GraphSpec
from ov2vss_runtime.bundle.bundle import (
    CutInfo,
    DenseInfo,
    Manifest,
    StateInfo,
    file_sha256,
)
from ov2vss_runtime.bundle.gates import Gate
from ov2vss_runtime.bundle.rollout import Rolled
from ov2vss_runtime.engines.engine import Engine

CUT_THRESHOLD = 0.25
"""Measured on dense features of street-lite: at most 0.06 within a shot, at least 0.46 between videos."""
UNKNOWN_BELOW = 0.1
"""The published methods' threshold for a background."""


@dataclass(frozen=True, kw_only=True)
class ClipRequest(ExportRequest):
    """What to export, beside what :class:`ExportRequest` says of trained models (``checkpoint`` is not used).

    Attributes:
        model, tag: open_clip's names.
        source: where the weights come from.
        dense: a recipe of :mod:`ov2vss.model.dense`.
        temperature: of cosines.
        affinity: carry features from frame to frame inside the step.
        synonyms: ``average`` or ``max``.
    """

    model: str
    tag: str
    source: ClipSource
    dense: str
    temperature: float = TEMPERATURE
    affinity: bool = False
    synonyms: str = "average"


def fitted_size(model: str, size: tuple[int, int]) -> tuple[int, int]:
    """The largest (H, W) within ``size`` whose sides are multiples of the model's patch."""
    vision = (open_clip.get_model_config(model) or {}).get("vision_cfg", {})
    named = re.search(r"_patch(\d+)_", str(vision.get("timm_model_name")))
    # A tower without patches is refused by name later.
    patch = int(named[1] if named else vision.get("patch_size") or 32)
    height, width = (max(2, side // patch) * patch for side in size)
    return height, width


def export_clip(request: ClipRequest) -> dict[str, list[Gate]]:
    """Write a training-free bundle and prove it, like :func:`ov2vss_export.bundle_writer.export_bundle`.

    Raises:
        OV2VSSError: a model or tag that open_clip does not have, towers that do not fit, no weights at hand, existing
            output; and what ``export_bundle`` raises.
    """
    if request.out.exists():
        raise OV2VSSError(f"{request.out} already exists", "choose another --out, or remove it first")
    if "int8" in request.precisions and request.calibrate is None:
        raise OV2VSSError("int8 needs frames like those it will see", "add --calibrate VIDEO", usage=True)
    settings = clip_settings(request.model, request.tag)
    config = open_clip.get_model_config(request.model)
    with torch.device("meta"):  # before anything is fetched or read
        empty = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])
    tokenizer = None
    if issubclass(check_recipe(empty, request.dense), SiglipDense):
        tokenizer = find_tokenizer(request.model, request.source)
    license_text = request.license_file.read_text(encoding="utf-8") if request.license_file else None
    weights = find_clip_weights(request.model, request.tag, request.source)
    network = load_clip(request.model, request.tag, request.source)
    encoder = (SiglipText(network, tokenizer) if tokenizer is not None else ClipText(network)).eval()
    tower = build_dense(network.visual, request.dense, 1, settings.mean, settings.std)
    tower.tokens = (request.size[0] // tower.patch[0]) * (request.size[1] // tower.patch[1])
    model = TrainingFree(tower, request.size, request.temperature, request.affinity).eval()
    return in_one_piece(
        request, lambda part: ClipExport(request, part, model, encoder, license_text, weights_file=weights).run()
    )


@dataclass
class ClipExport(BundleExport):
    """One such export into an empty folder."""

    request: ClipRequest
    model: TrainingFree
    weights_file: Path | None = None

    @property
    def templates(self) -> tuple[str, ...]:
        return imagenet_templates()

    @property
    def gap(self) -> int:
        return 1

    def _graphs(self) -> list[GraphSpec]:
        return clip_graphs(self.model, self.encoder)

    def _identity(self) -> str:
        if self.weights_file is None:
            return weights_sha256(self.model.image_encoder.visual, b"random")
        return file_sha256(self.weights_file)

    def _reference(self, embeddings: npt.NDArray[np.float32]) -> Rolled:
        return ClipFrames(self.model, embeddings)

    def _torch_engine(self) -> Engine:
        return ClipEngine(self.model, self.encoder)

    def _half(self) -> dict[str, onnx.ModelProto]:
        # Step and decoder are cosines: they stay in float32.
        names = ["backbone"] + (["text"] if self.request.text_weights == "float32" else [])
        return self._tagged({name: to_fp16(self.protos[name]) for name in names}, "fp16")

    def _manifest(self) -> Manifest:
        request, affinity = self.request, self.request.affinity
        settings = clip_settings(request.model, request.tag)
        published = open_clip.get_pretrained_cfg(request.model, request.tag) if request.tag else {}
        origin = published.get("hf_hub", "").rstrip("/") or published.get("url", "") or "not published under a tag"
        shape = [self.model.width, *self.model.grid]
        return Manifest(
            **self._common("open_clip_torch", settings.mean, settings.std, self.model.width, request.synonyms),
            source={
                "clip": {
                    "model": request.model,
                    "tag": request.tag,
                    "sha256": self.checkpoint_sha256,
                    "weights": "random" if self.weights_file is None else self.weights_file.name,
                    "published": origin,
                },
                "license": self._license_info(),
                "trained_classes": [],
                "unseen": [],
            },
            kind="training-free",
            state=StateInfo(input="state_in", output="state_out", shape=shape, warmup=0) if affinity else None,
            distant=[],
            references=1,
            gap=1,
            dense=DenseInfo(recipe=request.dense, constants=self.model.image_encoder.constants),
            cut=CutInfo(output="tokens", level=0, threshold=CUT_THRESHOLD),
            temperature=request.temperature,
            unknown_below=UNKNOWN_BELOW,
            temporal={
                "method": "affinity",
                "share": SHARE,
                "radius": RADIUS,
                "temperature": AFFINITY_TEMPERATURE,
            }
            if affinity
            else {},
        )
