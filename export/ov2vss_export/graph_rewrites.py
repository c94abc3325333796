"""The step and the decoder with fewer operations: the same functions, rearranged for engines in float32.

Nothing is approximated (``tests/export/test_graph_rewrites.py`` compares in float64); what each rearrangement saves
stands in docs/decisions.md. The wrappers of ``graphs.py`` are what these must equal, and what fp16 graphs are made of:
there the norms have to stay the engine's own operators.

Two of them recur. A norm followed by ReLU is ``relu(a x + b)`` with a > 0 for every map, which is
``a max(x, -b/a) + b``: one pass over the map, and ``a`` and ``b`` move into the linear map that comes next. And a
convolution with one kernel for all maps, of maps that are products ``keys @ queries``, is ``keys @ conv(queries)``.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ov2vss.model import OV2VSS, StepFeatures
from ov2vss.model.config import STRIDES
from ov2vss.model.pooling import Grid, pool_grids
from ov2vss.model.stcf import ConvNormReLU, RecursionStep, upsample

SMALLEST_GAIN = 1e-6
"""A norm's gain is kept this far from zero, since it is divided by: it changes less than float32 can show."""
ROWS = 16
"""Rows of a matrix product that an engine computes at once, about."""


def interpolation_matrix(size_in: int, size_out: int) -> Tensor:
    """Bilinear interpolation of one axis (half-pixel centres) as a float64 matrix ``[size_out, size_in]``."""
    basis = torch.eye(size_in, dtype=torch.float64).view(1, 1, size_in, size_in)
    return upsample(basis, (size_out, size_in))[0, 0]


class Upsample(nn.Module):
    """:func:`ov2vss.model.stcf.upsample` as two matrix products: ``[..., h, w] -> [..., H, W]``."""

    def __init__(self, size_in: Grid, size_out: Grid, dtype: torch.dtype) -> None:
        super().__init__()
        rows, columns = (interpolation_matrix(a, b) for a, b in zip(size_in, size_out, strict=True))
        self.register_buffer("rows", rows.to(dtype))
        self.register_buffer("columns", columns.T.contiguous().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ (x @ self.columns)


def row_squares(x: Tensor) -> Tensor:
    """Sums of squares of the rows, ``[..., R, K] -> [..., R, 1]``: the diagonals of small products ``x x^T``.

    It is a matrix product because that is somewhat faster on onnxruntime than ReduceL2 or a square and a sum.
    """
    rows = x.shape[-2]
    group = max(d for d in range(1, ROWS + 1) if rows % d == 0)
    parts = x.unflatten(-2, (rows // group, group))
    products = parts @ parts.transpose(-1, -2)
    return (products * torch.eye(group).to(x)).sum(-1, keepdim=True).flatten(-3, -2)


def split_gain(gain: Tensor) -> tuple[Tensor, Tensor]:
    """Sign (+1 or -1) and size (never zero) of a norm's gain."""
    sign = torch.where(gain < 0, -1.0, 1.0).to(gain)
    return sign, gain.abs().clamp(min=SMALLEST_GAIN)


class LeanNorm(nn.Module):
    """A :class:`ConvNormReLU` of the pyramid, whose kernel carries the sign of its gain; without its norm and ReLU.

    Attributes:
        gain: size of the gain.
        offset: of the norm.
    """

    def __init__(self, layer: ConvNormReLU, maps: int) -> None:
        super().__init__()
        sign, gain = split_gain(layer.gain)
        self.padding = layer.kernel // 2
        self.register_buffer("kernel", (layer.weight * sign).expand(maps, 1, -1, -1).contiguous())
        self.register_buffer("gain", gain)
        self.register_buffer("offset", layer.offset.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Convolved and centred maps, ``[1, M, h, w] -> [1, M, h, w]``."""
        x = F.conv2d(x, self.kernel, padding=self.padding, groups=x.shape[1])
        return x - x.mean(dim=(2, 3), keepdim=True)

    def factor(self, maps: Tensor, epsilon: Tensor | float = 1e-5) -> Tensor:
        """gain / deviation of centred maps ``[1, M, K] -> [1, M, 1]``."""
        return self.gain * torch.rsqrt(row_squares(maps) / maps.shape[2] + epsilon)


class LeanLink(nn.Module):
    """A :class:`RecursionStep`: ``Q K^T V`` is ``tokens (Wq Wk^T) (past^T past) Wv`` and what the biases add."""

    def __init__(self, step: RecursionStep) -> None:
        super().__init__()
        self.mix, self.value = step.mix, step.value
        query, bias = step.query.weight * step.scale, step.query.bias * step.scale
        key = step.key.weight.transpose(1, 2), step.key.bias.transpose(1, 2)
        for name, left in (("inner", query), ("outer", bias)):
            self.register_buffer(name, (left @ key[0]).contiguous())
            self.register_buffer(f"{name}_bias", (left @ key[1]).contiguous())

    def forward(self, tokens: Tensor, past: Tensor, lattice: Grid) -> Tensor:
        """``tokens`` and D_{k-1} -> D_k, all ``[1, 4, M, C]``."""
        gram = past.transpose(2, 3) @ past / past.shape[2]
        mean = past.mean(2, keepdim=True)
        values = mean @ self.value.weight + self.value.bias
        right = gram @ self.value.weight + mean.transpose(2, 3) * self.value.bias
        matrix = self.inner @ right + self.inner_bias * values
        return self.mix(tokens @ matrix + (self.outer @ right + self.outer_bias * values), lattice)


class LeanStep(nn.Module):
    """What :class:`ov2vss_export.graphs.StepGraph` computes."""

    def __init__(self, model: OV2VSS, lattice: Grid) -> None:
        super().__init__()
        self.model, self.lattice = model, lattice
        config, fusion = model.config, model.stcf
        dtype, width = model.project[0].weight.dtype, config.width
        self.sizes = [(lattice[0] * 32 // s, lattice[1] * 32 // s) for s in STRIDES[1:]]
        fine, middle, coarse = self.sizes
        self.up_middle = Upsample(coarse, middle, dtype)
        self.links = nn.ModuleList(LeanLink(step) for step in fusion.steps)
        count, pyramid = sum(prod(grid) for grid in pool_grids(lattice)), fusion.pyramid
        layers = (pyramid.level_s8, pyramid.level_s16, pyramid.level_s32)
        # One kernel for all maps, so it may go over the queries, of which there are fewer.
        self.levels = nn.ModuleList(LeanNorm(layer, width) for layer in layers)
        self.last = LeanNorm(pyramid.merge_s8, count)
        # V of the four levels and their merge are two linear maps in a row, and so is 1/M.
        merge = fusion.merge_values.weight.T.unflatten(0, (len(STRIDES), width)) / count
        weight = (fusion.value.weight @ merge).flatten(0, 1)
        bias = (fusion.value.bias @ merge).sum(0) + fusion.merge_values.bias / count
        # O_t is read by the attention on regions alone: its queries are made without it, and its output, which only
        # the decoder's convolution reads, is never made. The convolution of a bias is not constant at the border.
        self.direct = not (config.stcf_residual or config.rfe_residual or config.local_memory)
        self.direct = self.direct and config.fusion == "concat"
        if self.direct:
            attention, decoder = model.rfe.attention, model.decoder
            query = attention.query.weight.T * attention.scale
            weight, bias = weight @ query, bias @ query
            out = attention.out
            kernel = torch.einsum("oikl,ij->ojkl", decoder.video_conv.weight, out.weight)
            constant = out.bias[None, :, None, None].expand(-1, -1, *fine)
            self.register_buffer("video_kernel", kernel.contiguous())
            self.register_buffer("video_bias", F.conv2d(constant, decoder.video_conv.weight, padding=1))
        self.register_buffer("merge_weight", weight.T.contiguous())
        self.register_buffer("merge_bias", bias.T.contiguous())

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
        model, queries = self.model, [feat_s8, feat_s16, feat_s32]
        local: list[Tensor] = []
        if model.memory is not None:
            target = StepFeatures(queries, tokens[None], position[None], self.lattice)
            chained, *local = model.unpacked(state_in[None], target)
            state_in = chained.squeeze(0)
        states = state_in.split(1)
        maps, scale, shift = self.affinities(queries, states[-1])
        merged = self.merge_weight @ states[-1].transpose(2, 3).flatten(1, 2) + self.merge_bias
        mixed = (merged * scale.transpose(1, 2)) @ maps + (merged * shift).sum(2, keepdim=True)
        if self.direct:
            guidance = self.attend(mixed, context[None], position[None])
        else:
            o_t = mixed.unflatten(2, self.sizes[0])
            for conv, query in zip(model.stcf.residual or (), queries, strict=False):
                o_t = o_t + upsample(conv(query / model.stcf.scale), self.sizes[0])
            if model.memory is not None:
                seen = model.memory.look(queries)
                o_t = o_t + model.memory.read(seen, [memory[:, -1] for memory in local])
            guidance = model.guidance(o_t, context[None], position[None])
        chain = [model.stcf.first(tokens[None], self.lattice)]
        chain += [link(tokens[None], past, self.lattice) for link, past in zip(self.links, states, strict=False)]
        if model.memory is None:
            return guidance.squeeze(0), torch.cat(chain)
        new = [torch.cat(chain)[None], *model.memory.advance(seen, local)]
        return guidance.squeeze(0), model.packed(new).squeeze(0)

    def affinities(self, queries: list[Tensor], past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B of Eq. 5 as ``scale * maps + shift``: ``[1, M, H/8 * W/8]``, ``[1, M, 1]`` and a number."""
        fusion = self.model.stcf
        keys = fusion.key(past[:, 1:])
        maps, factors = [], []
        for i, (level, query) in enumerate(zip(self.levels, queries, strict=True)):
            product = keys[:, i] @ level(query).flatten(2)
            factors.append(level.factor(product)[..., None])
            maps.append(product.unflatten(2, query.shape[-2:]))
        (fine, middle, coarse), (a_fine, a_middle, a_coarse) = maps, factors
        b_fine, b_middle, b_coarse = (level.offset for level in self.levels)
        b = self.up_middle(F.relu(coarse * a_coarse + b_coarse)) + F.relu(middle * a_middle + b_middle)
        b = fusion.pyramid.merge_s16(b)
        # b + a_fine max(fine, t) + b_fine, divided by a_fine: what follows is a norm, which only needs its epsilon to
        # be divided too.
        b = upsample((b + b_fine) / a_fine, self.sizes[0]) + torch.maximum(fine, -b_fine / a_fine)
        b = self.last(b).flatten(2)
        scale = self.last.factor(b, 1e-5 / a_fine[..., 0].square())
        return torch.maximum(b, -self.last.offset / scale), scale, self.last.offset

    def attend(self, query: Tensor, context: Tensor, position: Tensor) -> Tensor:
        """Guidance ``[1, c', H/8, W/8]`` from the attention's queries ``[1, C, H/8 * W/8]``."""
        model, attention = self.model, self.model.rfe.attention
        keys, values = (attention.split(x) for x in attention.memory(context))
        query = query.unflatten(1, (attention.heads, -1)).transpose(2, 3)
        weights = torch.softmax(query @ keys.transpose(2, 3), dim=-1)
        video = (values.transpose(2, 3) @ weights.transpose(2, 3)).flatten(1, 2).unflatten(2, self.sizes[0])
        shared = model.decoder.cost_conv(upsample(model.cost.shared(position), self.sizes[0]))
        return shared + F.conv2d(video, self.video_kernel, padding=1) + self.video_bias


class LeanHead(nn.Module):
    """What :class:`ov2vss_export.graphs.HeadGraph` computes, for a cost volume on ``grid``."""

    def __init__(self, model: OV2VSS, grid: Grid, size: Grid) -> None:
        super().__init__()
        self.model, self.size = model, size
        decoder, dtype = model.decoder, model.project[0].weight.dtype
        self.groups = decoder.norm.num_groups
        self.up = Upsample(grid, size, dtype)
        sign, gain = split_gain(decoder.norm.weight)
        self.flipped = bool((sign < 0).any())
        self.register_buffer("sign", sign[:, None, None])
        self.register_buffer("gain", gain[None, :, None])
        self.register_buffer("kernel", decoder.cost_conv.weight * self.sign[..., None])
        # The last convolution: a product with its nine taps, then nine shifted sums; the taps of a constant are
        # missing where the image ends.
        self.register_buffer("taps", decoder.logit.weight[0].permute(1, 2, 0).flatten(0, 1).contiguous())
        inside = F.unfold(torch.ones(1, 1, *size, dtype=dtype), 3, padding=1)[0]
        constant = (self.taps @ decoder.norm.bias) @ inside + decoder.logit.bias
        self.register_buffer("constant", constant.unflatten(0, size)[None])
        self.register_buffer("mean_kernel", decoder.cost_conv.weight.flatten(1).T.contiguous())
        # Means over the image of the nine shifts of an upsampled, zero-padded map.
        rows, columns = (self._shifted_means(a, b).to(dtype) for a, b in zip(grid, size, strict=True))
        self.register_buffer("mean_rows", rows)
        self.register_buffer("mean_columns", columns.T.contiguous())

    @staticmethod
    def _shifted_means(size_in: int, size_out: int) -> Tensor:
        """``[3, size_in]`` float64: mean of the interpolated axis, shifted by -1, 0 and 1 with zeros."""
        padded = F.pad(interpolation_matrix(size_in, size_out), (0, 0, 1, 1))
        return torch.stack([padded[k : k + size_out].sum(0) / size_out for k in range(3)])

    def forward(self, guidance: Tensor, dense: Tensor, refined_embeddings: Tensor) -> Tensor:
        decoder = self.model.decoder
        volume = (refined_embeddings @ dense.flatten(1)).unflatten(1, dense.shape[-2:])
        cost = self.model.cost(volume[:, None])
        x = F.conv2d(self.up(cost), self.kernel, padding=1)
        x = (x + (guidance * self.sign if self.flipped else guidance)).flatten(2)

        # GroupNorm(x) = a (x - mean) + b. The mean comes from the small maps, without a pass over the large ones.
        means = ((self.mean_rows @ cost) @ self.mean_columns).flatten(1) @ self.mean_kernel
        means = self._by_group(means + guidance.mean(dim=(1, 2))).mean(-1, keepdim=True)
        members = x.shape[1] // self.groups
        # Centred before it is squared: the square of a mean that is large beside the deviation would drown it.
        x = x - means.expand(-1, -1, members).flatten(1)[..., None] * self.sign[..., 0]
        squares = self._by_group(row_squares(x)[..., 0]).sum(-1, keepdim=True)
        variance = squares / (x.shape[2] * members)
        inverse = torch.rsqrt(variance + decoder.norm.eps).expand(-1, -1, members).flatten(1)[..., None]
        a = self.gain * inverse
        b = decoder.norm.bias[:, None]

        x = torch.maximum(x, -b / a)
        taps = ((self.taps * a.transpose(1, 2)) @ x).unflatten(2, self.size)
        taps, (height, width) = zero_border(taps), self.size
        logits = self.constant
        for row in range(3):
            for column in range(3):
                logits = logits + taps[:, 3 * row + column, row : row + height, column : column + width]
        return logits

    def _by_group(self, x: Tensor) -> Tensor:
        """``[N, c'] -> [N, groups, c' / groups]``"""
        return x.unflatten(1, (self.groups, -1))


def zero_border(maps: Tensor) -> Tensor:
    """``[..., h, w] -> [..., h + 2, w + 2]``: finite maps with zeros around them.

    Concatenations, since ONNX Runtime has no CUDA kernel for Pad from opset 19 on and would take the maps to the
    processor and back.
    """
    row = maps[..., :1, :] * 0.0
    maps = torch.cat([row, maps, row], dim=-2)
    column = maps[..., :1] * 0.0
    return torch.cat([column, maps, column], dim=-1)


class LeanDecoder(LeanHead):
    """What :class:`ov2vss_export.graphs.DecoderGraph` computes."""

    def forward(  # type: ignore[override]  # the head after the refinement of the text
        self, guidance: Tensor, dense: Tensor, text_memory: Tensor, class_embeddings: Tensor
    ) -> Tensor:
        text = self.model.text_refinement(class_embeddings, text_memory[:1], text_memory[1:]).squeeze(0)
        return super().forward(guidance, dense, text)
