"""OV2VSS: the figure of the paper in code.

frame --backbone--> U --project, pool--> tokens --STCF (past)--> O_t --RFE (distant frame)--> O^_t --+
  |                                                                                                  decoder -> logits
  +--image encoder--> F^V --cosine with refined F^T--> X --conv, position--> X^ ---------------------+
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model.backbone import Backbone
from ov2vss.model.config import STRIDES, ModelConfig
from ov2vss.model.cost_volume import CostRefinement, PositionFeatures, cosine_volume
from ov2vss.model.decoder import AuxiliaryHead, Decoder
from ov2vss.model.image_encoder import build_image_encoder
from ov2vss.model.local_memory import LINKS, LocalMemory
from ov2vss.model.pooling import Grid, pool_tokens, resize_average
from ov2vss.model.random_frame import RandomFrameEnhancement, RegionContext
from ov2vss.model.stcf import SpatialTemporalFusion, upsample
from ov2vss.model.text_refinement import TextRefinement


@dataclass(frozen=True)
class StepFeatures:
    """What the step takes of a frame.

    Attributes:
        queries: the target's queries at strides 8, 16, 32, each ``[B, C, ., .]``; without STCF the four projected
            levels.
        tokens: pooled projected features ``[B, 4, M, C]``.
        position: ``[B, P, hc, wc]``.
        lattice: size of the stride-32 grid.
    """

    queries: list[Tensor]
    tokens: Tensor
    position: Tensor
    lattice: Grid


@dataclass(frozen=True)
class FrameFeatures(StepFeatures):
    """Everything that one frame contributes, whatever the classes and the past.

    Attributes:
        levels: raw backbone maps ``[B, C_l, H/s, W/s]`` at strides 4, 8, 16, 32.
        dense: F^V, unit length ``[B, D, hc, wc]``.
    """

    levels: list[Tensor]
    dense: Tensor


class Past(NamedTuple):
    """What the references leave for the target.

    Attributes:
        chain: D_{n-1} ``[B, 4, M, C]``.
        local: last memories of the local memory; empty without one.
    """

    chain: Tensor
    local: list[Tensor]


class Prediction(NamedTuple):
    """Scores of one batch.

    Attributes:
        logits: ``[B, N, H/8, W/8]``.
        aux: closed-set logits of the auxiliary head ``[B, K, H/8, W/8]``, if there is one.
        volume: the cosine volume X ``[B, N, hc, wc]`` of the *unrefined* class embeddings.
    """

    logits: Tensor
    aux: Tensor | None
    volume: Tensor


class OV2VSS(nn.Module):
    """The whole network for words given as embeddings.

    Args:
        config: the architecture.
        aux_classes: number of closed-set classes of the auxiliary head; 0 leaves the head out.
    """

    def __init__(self, config: ModelConfig, aux_classes: int = 0) -> None:
        super().__init__()
        c = self.config = config
        self.backbone = Backbone(c.backbone, c.mean, c.std, c.freeze_norm)
        self.project = nn.ModuleList(nn.Conv2d(channels, c.width, 1) for channels in self.backbone.channels)
        self.image_encoder = build_image_encoder(c, self.backbone.channels)
        if c.stcf:
            self.stcf = SpatialTemporalFusion(c.width, c.references, c.stcf_residual)
        else:
            self.flat_fusion = nn.Conv2d(len(STRIDES) * c.width, c.width, 1)
        self.memory = LocalMemory(c.width) if c.local_memory else None
        if c.rfe:
            self.region_context = RegionContext(c.width, c.regions)
            self.rfe = RandomFrameEnhancement(c.width, c.heads, c.rfe_residual)
        if c.vte:
            self.text_refinement = TextRefinement(c.embed_dim, c.heads, c.refine_ffn)
        self.position = PositionFeatures(c.width, c.position_width)
        self.cost = CostRefinement(c.cost_width, c.position_width)
        self.decoder = Decoder(c.cost_width, c.width, c.decoder_width, c.decoder_groups, c.fusion)
        self.aux_head = AuxiliaryHead(c.width, aux_classes, c.decoder_groups) if aux_classes else None

    # -- weights -------------------------------------------------------------------------------------------------

    def trained_state(self) -> dict[str, Tensor]:
        """``state_dict`` without a frozen image encoder: what a checkpoint holds."""
        frozen = "image_encoder." if getattr(self.image_encoder, "frozen", False) else None
        return {k: v for k, v in self.state_dict().items() if frozen is None or not k.startswith(frozen)}

    def load_trained_state(self, weights: dict[str, Tensor]) -> None:
        """Inverse of :meth:`trained_state`; RuntimeError where a name or a shape does not fit."""
        trained = self.trained_state()
        frozen = {k: v for k, v in self.state_dict().items() if k not in trained}
        self.load_state_dict(frozen | weights, strict=True)

    # -- once per frame ------------------------------------------------------------------------------------------

    def encode(self, frame: Tensor) -> FrameFeatures:
        """``frame``: RGB uint8 or float in [0, 255], ``[B, 3, H, W]``, H and W multiples of 32."""
        image = frame.to(self.project[0].weight.dtype) / 255
        levels = self.backbone(image)
        dense = self.image_encoder(image, levels)
        shallow = self.project[0](resize_average(levels[0], dense.shape[-2:]))
        return FrameFeatures(
            self.queries(levels),
            self.tokens(levels),
            self.position(shallow),
            (levels[-1].shape[-2], levels[-1].shape[-1]),
            levels,
            dense,
        )

    def tokens(self, levels: list[Tensor]) -> Tensor:
        """Pooled tokens ``[B, 4, M, C]``; pooling first and projecting after is the same and cheaper."""
        pooled = []
        for project, level, stride in zip(self.project, levels, STRIDES, strict=True):
            pooled.append(F.linear(pool_tokens(level, stride), project.weight.flatten(1), project.bias))
        return torch.stack(pooled, dim=1)

    def context(self, tokens: Tensor, lattice: Grid) -> Tensor:
        """L_r ``[B, R, C]`` of a distant frame."""
        return self.region_context(tokens, lattice)

    def queries(self, levels: list[Tensor]) -> list[Tensor]:
        """What the frame, as the target, brings to :meth:`fuse`: its queries at strides 8, 16, 32, each
        ``[B, C, ., .]``; without STCF its projected levels, none of them finer than stride 8."""
        if self.config.stcf:
            return self.stcf.target_queries([p(u) for p, u in zip(self.project[1:], levels[1:], strict=True)])
        size = levels[1].shape[-2:]
        return [
            p(resize_average(u, size) if s < 8 else u) for p, u, s in zip(self.project, levels, STRIDES, strict=True)
        ]

    # -- once per frame, with the past ---------------------------------------------------------------------------

    def step(self, target: StepFeatures, context: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One frame of a stream.

        Args:
            target: the frame.
            context: ``[B, R, C]`` of its distant frame; None without random-frame enhancement.
            state: ``[B, n, 4, M, C]`` of the frame ``gap`` earlier, with a local memory ``[B, S]`` (see
                :meth:`packed`); None for zeros.

        Returns:
            Guidance ``[B, c', H/8, W/8]`` and the state of this frame (None without STCF).
        """
        if not self.config.stcf:
            return self.guidance(self.fuse(target, None), context, target.position), None
        if state is None:
            batch = target.tokens.shape[0]
            state = self.packed([target.tokens.new_zeros(batch, *shape) for shape in self.state_shapes(target)])
        chain, *local = self.unpacked(state, target)
        past = Past(chain[:, -1], [memory[:, -1] for memory in local])
        guidance = self.guidance(self.fuse(target, past), context, target.position)
        new = [self.stcf.advance(target.tokens, chain, target.lattice)]
        if self.memory is not None:
            new += self.memory.advance(self.memory.look(target.queries), local)
        return guidance, self.packed(new)

    def state_shapes(self, target: StepFeatures) -> list[tuple[int, ...]]:
        """Shapes of the parts of a state, without the batch axis."""
        chain = (self.config.references, *target.tokens.shape[1:])
        return [chain, *(self.memory.shapes(target.queries) if self.memory is not None else ())]

    def packed(self, parts: list[Tensor]) -> Tensor:
        """A state as one tensor: the chain itself, or, with a local memory, all parts flat after each other."""
        return parts[0] if self.memory is None else torch.cat([part.flatten(1) for part in parts], 1)

    def unpacked(self, state: Tensor, target: StepFeatures) -> list[Tensor]:
        """Inverse of :meth:`packed`."""
        if self.memory is None:
            return [state]
        shapes = self.state_shapes(target)
        flat = state.split([prod(shape) for shape in shapes], 1)
        return [part.reshape(-1, *shape) for part, shape in zip(flat, shapes, strict=True)]

    def fuse(self, target: StepFeatures, past: Past | None) -> Tensor:
        """O_t ``[B, C, H/8, W/8]`` from the target frame and what the references have left of themselves."""
        if past is not None:
            o_t = self.stcf.fuse(target.queries, past.chain)
            if self.memory is not None:
                o_t = o_t + self.memory.read(self.memory.look(target.queries), past.local)
            return o_t
        size = target.queries[1].shape[-2:]
        return self.flat_fusion(torch.cat([upsample(u, size) for u in target.queries], dim=1))

    def guidance(self, o_t: Tensor, context: Tensor | None, position: Tensor) -> Tensor:
        """All of the decoder's input that no class changes, ``[B, c', H/8, W/8]``."""
        o_hat = self.rfe(o_t, context) if self.config.rfe else o_t
        return self.decoder.guidance(o_hat, self.cost.shared(position))

    # -- once per class ------------------------------------------------------------------------------------------

    def decode(self, guidance: Tensor, dense: Tensor, memory: tuple[Tensor, Tensor] | None, text: Tensor) -> Tensor:
        """Logits ``[B, N, H/8, W/8]`` for class embeddings ``text [N, D]``, or ``[B, N, D]``, each frame's own."""
        batch, count = dense.shape[0], text.shape[-2]
        if memory is not None:
            text = self.text_refinement(text, *memory)
        else:
            text = F.normalize(text, dim=-1).expand(batch, -1, -1)
        volume = cosine_volume(text, dense)
        cost = self.cost(volume.flatten(0, 1).unsqueeze(1))
        if batch > 1:
            guidance = guidance.repeat_interleave(count, dim=0)
        return self.decoder(cost, guidance).reshape(batch, count, *guidance.shape[-2:])

    # -- a clip --------------------------------------------------------------------------------------------------

    def forward(self, clip: Tensor, distant: Tensor, text: Tensor, reference_grad: bool = True) -> Prediction:
        """Clip mode.

        Args:
            clip: ``[B, n + 1, 3, H, W]`` RGB in [0, 255], references oldest first, the target frame last.
            distant: the random (training) or most distant (test) frame, ``[B, 3, H, W]``.
            text: class embeddings ``[N, D]``, unit length.
            reference_grad: let gradients reach the backbone through the references and the distant frame too.
        """
        return self.forward_clip(clip, distant, text, reference_grad)[0]

    def forward_clip(
        self, clip: Tensor, distant: Tensor, text: Tensor, reference_grad: bool = True
    ) -> tuple[Prediction, Tensor]:
        """:meth:`forward` and the target's F^V; ``text [N, D]``, or ``[B, N, D]``, words of each clip."""
        target = self.encode(clip[:, -1])
        past = context = None
        batch = clip.shape[0]
        others = ([clip[:, k] for k in range(clip.shape[1] - 1)] if self.config.stcf else []) + (
            [distant] if self.config.rfe else []
        )
        if others:
            with torch.set_grad_enabled(reference_grad and torch.is_grad_enabled()):
                levels = self.backbone(torch.cat(others).to(self.project[0].weight.dtype) / 255)
            tokens = list(self.tokens(levels).split(batch))
            if self.config.rfe:
                context = self.context(tokens.pop(), target.lattice)
            if self.config.stcf:
                places = [k * batch for k in range(len(tokens))]
                seen = [self.queries([u[k : k + batch] for u in levels]) for k in places] if self.memory else []
                past = self.past(tokens, seen, target.lattice)
        return self.predict(target, past, context, text), target.dense

    def forward_single(self, frame: Tensor, text: Tensor) -> Prediction:
        """The per-frame baseline: all references and the distant frame are the frame ``[B, 3, H, W]`` itself."""
        return self.predict_single(self.encode(frame), text)

    def forward_words(self, frame: Tensor, text: Tensor) -> tuple[Prediction, Tensor]:
        """:meth:`forward_single` and F^V; ``text [B, N, D]``, words of each frame."""
        target = self.encode(frame)
        return self.predict_single(target, text), target.dense

    def predict_single(self, target: FrameFeatures, text: Tensor) -> Prediction:
        """:meth:`forward_single` for a frame that is encoded already; ``text [N, D]``, or ``[B, N, D]``."""
        past = context = None
        if self.config.stcf:
            count = self.config.references
            past = self.past([target.tokens] * count, [target.queries] * count, target.lattice)
        if self.config.rfe:
            context = self.context(target.tokens, target.lattice)
        return self.predict(target, past, context, text)

    def past(self, tokens: list[Tensor], queries: list[list[Tensor]], lattice: Grid) -> Past:
        """What n reference frames leave for the target: their tokens and, with a local memory, their queries; oldest
        first."""
        local = []
        if self.memory is not None:
            local = self.memory.chain([self.memory.look(seen) for seen in queries[-LINKS:]])
        return Past(self.stcf.chain(tokens, lattice), local)

    def predict(self, target: FrameFeatures, past: Past | None, context: Tensor | None, text: Tensor) -> Prediction:
        o_t = self.fuse(target, past)
        guidance = self.guidance(o_t, context, target.position)
        memory = self.text_refinement.memory(target.dense) if self.config.vte else None
        logits = self.decode(guidance, target.dense, memory, text)
        aux = self.aux_head(o_t) if self.aux_head is not None else None
        volume = cosine_volume(text.expand(target.dense.shape[0], -1, -1), target.dense)
        return Prediction(logits, aux, volume)
