"""The graphs as small modules around an untouched model (contract: docs/bundle.md).

Everything that does not depend on a class is in ``backbone`` and ``stcf_step``; ``decoder`` is per class only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model import OV2VSS, StepFeatures
from ov2vss.model.config import STRIDES
from ov2vss.model.cost_volume import cosine_volume
from ov2vss.model.pooling import resize_average
from ov2vss.model.stcf import upsample
from ov2vss.text import TextEncoder
from ov2vss_export.graph_rewrites import LeanDecoder, LeanHead, LeanStep


class TextGraph(nn.Module):
    """``tokens`` int64 [B, L], ``attention_mask`` int64 [B, L] -> ``embeddings`` [B, D], unit length."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder(tokens, attention_mask)


class BackboneGraph(nn.Module):
    """``frame`` uint8 [1, H, W, 3] RGB -> all that the frame contributes; normalisation is inside."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model
        # What the step takes of a level is a 1x1 convolution of a 1x1 convolution: fold the two.
        for index, (project, (outer, bias)) in enumerate(zip(model.project[1:], outer_maps(model), strict=True)):
            self.register_buffer(f"query_weight_{index}", (outer @ project.weight.flatten(1))[:, :, None, None])
            self.register_buffer(f"query_bias_{index}", outer @ project.bias + bias)
        if not model.config.stcf:
            outer, project = model.flat_fusion.weight[:, : model.config.width].flatten(1), model.project[0]
            self.register_buffer("fine_weight", (outer @ project.weight.flatten(1))[:, :, None, None])
            self.register_buffer("fine_bias", outer @ project.bias)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        # uint8 -> float first: TensorRT-RTX has no uint8 transpose.
        image = frame.to(model.project[0].weight.dtype).permute(0, 3, 1, 2) / 255
        levels = model.backbone(image)
        dense = model.image_encoder(image, levels)
        tokens = model.tokens(levels)
        shallow = model.project[0](resize_average(levels[0], dense.shape[-2:]))
        context = model.context(tokens, (levels[-1].shape[-2], levels[-1].shape[-1]))
        queries = [
            F.conv2d(level, getattr(self, f"query_weight_{i}"), getattr(self, f"query_bias_{i}"))
            for i, level in enumerate(levels[1:])
        ]
        if not model.config.stcf:
            fine = resize_average(levels[0], levels[1].shape[-2:])
            queries[0] = queries[0] + F.conv2d(fine, self.fine_weight, self.fine_bias)
        keys, values = model.text_refinement.memory(dense)
        position = model.position(shallow)
        # Not x[0], which engines take for a copy.
        tokens, context, dense, position = (x.squeeze(0) for x in (tokens, context, dense, position))
        return *queries, tokens, context, dense, torch.cat([keys, values]), position


def outer_maps(model: OV2VSS) -> list[tuple[Tensor, Tensor]]:
    """What is done to the projected levels at strides 8, 16, 32 for the step, as a matrix ``[C, C]`` and a bias: the
    target's queries or, without STCF, each level's share of the flat fusion."""
    if model.config.stcf:
        scale = model.stcf.scale
        return [(query.weight.flatten(1) * scale, query.bias * scale) for query in model.stcf.queries]
    _, *parts = model.flat_fusion.weight.flatten(1).split(model.config.width, 1)
    bias = model.flat_fusion.bias
    return [(part, bias if k == 0 else torch.zeros_like(bias)) for k, part in enumerate(parts)]


class FlatStepGraph(nn.Module):
    """:meth:`OV2VSS.step` of a model without STCF: a frame by itself and its distant frame, and no state."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, feat_s8: Tensor, feat_s16: Tensor, feat_s32: Tensor, context: Tensor, position: Tensor) -> Tensor:
        size = feat_s8.shape[-2:]
        o_t = feat_s8 + upsample(feat_s16, size) + upsample(feat_s32, size)
        return self.model.guidance(o_t, context[None], position[None])[0]


class StepGraph(nn.Module):
    """:meth:`OV2VSS.step` of one frame."""

    def __init__(self, model: OV2VSS, lattice: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.lattice = model, lattice

    def forward(
        self,
        feat_s8: Tensor,
        feat_s16: Tensor,
        feat_s32: Tensor,
        tokens: Tensor,
        context: Tensor,
        position: Tensor,
        state_in: Tensor,
    ) -> tuple[Tensor, Tensor]:
        target = StepFeatures([feat_s8, feat_s16, feat_s32], tokens[None], position[None], self.lattice)
        guidance, state = self.model.step(target, context[None], state_in[None])
        assert state is not None
        return guidance[0], state[0]


class DecoderGraph(nn.Module):
    """``class_embeddings`` [N, D] -> ``logits`` [N, H/8, W/8]; any N, so that classes can be run in chunks."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, guidance: Tensor, dense: Tensor, text_memory: Tensor, class_embeddings: Tensor) -> Tensor:
        keys, values = text_memory[:1], text_memory[1:]
        return self.model.decode(guidance[None], dense[None], (keys, values), class_embeddings)[0]


class RefinementGraph(nn.Module):
    """The first part of the decoder: ``class_embeddings`` [N, D] -> ``refined_embeddings`` [N, D], unit length."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, text_memory: Tensor, class_embeddings: Tensor) -> Tensor:
        return self.model.text_refinement(class_embeddings, text_memory[:1], text_memory[1:]).squeeze(0)


class HeadGraph(nn.Module):
    """The second part of the decoder: ``refined_embeddings`` [N, D] -> ``logits`` [N, H/8, W/8]."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, guidance: Tensor, dense: Tensor, refined_embeddings: Tensor) -> Tensor:
        volume = cosine_volume(refined_embeddings[None], dense[None])[0]
        return self.model.decoder(self.model.cost(volume.unsqueeze(1)), guidance[None])[:, 0]


@dataclass(frozen=True)
class GraphSpec:
    """One graph ready for the exporter.

    Attributes:
        module: the wrapper.
        inputs: example inputs by name, in order.
        outputs: output names, in order.
        dynamic: symbolic names of dynamic axes per input.
        lean: the same function with fewer operations, for float32.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]
    dynamic: dict[str, dict[int, str]]
    lean: nn.Module | None = None


BACKBONE_OUTPUTS = [
    *(f"feat_s{s}" for s in STRIDES[1:]),
    "tokens",
    "context",
    "dense",
    "text_memory",
    "position",
]


def text_spec(encoder: TextEncoder) -> GraphSpec:
    """The graph of any text encoder."""
    prompts = encoder.tokenizer.encode_batch(["a photo of a red circle", "background"])
    inputs = {
        "tokens": torch.tensor([p.ids for p in prompts]),
        "attention_mask": torch.tensor([p.attention_mask for p in prompts]),
    }
    return GraphSpec(
        "text", TextGraph(encoder).eval(), inputs, ["embeddings"], {name: {0: "B", 1: "L"} for name in inputs}
    )


def step_spec(model: OV2VSS, encoded: dict[str, Tensor], lattice: tuple[int, int]) -> GraphSpec:
    """``stcf_step`` for what the backbone gave of a frame; without STCF it has no state."""
    queries = [encoded[name] for name in BACKBONE_OUTPUTS[:3]]
    inputs = {k: encoded[k] for k in (*BACKBONE_OUTPUTS[:3], "tokens", "context", "position")}
    if not model.config.stcf:
        del inputs["tokens"]
        return GraphSpec("stcf_step", FlatStepGraph(model).eval(), inputs, ["guidance"], {})
    target = StepFeatures(queries, encoded["tokens"][None], encoded["position"][None], lattice)
    inputs["state_in"] = model.packed([torch.zeros(1, *shape) for shape in model.state_shapes(target)])[0]
    lean = LeanStep(model, lattice).eval()
    return GraphSpec("stcf_step", StepGraph(model, lattice).eval(), inputs, ["guidance", "state_out"], {}, lean)


@torch.no_grad()
def build_graphs(model: OV2VSS, encoder: TextEncoder, size: tuple[int, int]) -> list[GraphSpec]:
    """The graphs ``text``, ``backbone``, ``stcf_step`` and ``decoder``, and the decoder's two parts, for frames of
    ``size`` (H, W)."""
    model = model.eval()
    config = model.config
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=generator)
    backbone = BackboneGraph(model).eval()
    encoded = dict(zip(BACKBONE_OUTPUTS, backbone(frame), strict=True))
    lattice = (size[0] // STRIDES[-1], size[1] // STRIDES[-1])
    step = step_spec(model, encoded, lattice)
    found = step.module(*step.inputs.values())
    guidance = found[0] if config.stcf else found
    text = F.normalize(torch.randn(5, config.embed_dim, generator=generator), dim=-1)
    decoder_inputs = {
        "guidance": guidance,
        "dense": encoded["dense"],
        "text_memory": encoded["text_memory"],
        "class_embeddings": text,
    }
    parts = {
        "text_refinement": {k: decoder_inputs[k] for k in ("text_memory", "class_embeddings")},
        "class_head": {k: decoder_inputs[k] for k in ("guidance", "dense")} | {"refined_embeddings": text},
    }
    grids = encoded["dense"].shape[-2:], guidance.shape[-2:]
    return [
        text_spec(encoder),
        GraphSpec("backbone", backbone, {"frame": frame}, BACKBONE_OUTPUTS, {}),
        step,
        GraphSpec(
            "decoder",
            DecoderGraph(model).eval(),
            decoder_inputs,
            ["logits"],
            {"class_embeddings": {0: "N"}},
            LeanDecoder(model, *grids).eval(),
        ),
        GraphSpec(
            "text_refinement",
            RefinementGraph(model).eval(),
            parts["text_refinement"],
            ["refined_embeddings"],
            {"class_embeddings": {0: "N"}},
        ),
        GraphSpec(
            "class_head",
            HeadGraph(model).eval(),
            parts["class_head"],
            ["logits"],
            {"refined_embeddings": {0: "N"}},
            LeanHead(model, *grids).eval(),
        ),
    ]
