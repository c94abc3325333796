"""The collapsed recursion against the explicit one, and streams against clips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ov2vss.data.clips import clip_indices
from ov2vss.model import OV2VSS
from ov2vss.model.pooling import pool_tokens
from ov2vss.model.stcf import ConvNormReLU, RecursionStep, SpatialTemporalFusion, upsample
from ov2vss.torch_engine import TorchEngine
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.stream.stream import Stream
from tests.conftest import moving_frames, random_model

SIZE = (96, 160)
STRIDES = (4, 8, 16, 32)


def explicit_step(step: RecursionStep, levels: list[torch.Tensor], past: torch.Tensor) -> torch.Tensor:
    """D_k by Eqs. 3 and 4 as written: full-resolution queries, the affinity A (HW x M), N = A V / M, pool, f_k."""
    lattice = levels[-1].shape[-2:]
    pooled = []
    for i, (u, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        pixels = u.flatten(2).transpose(1, 2)
        query = (pixels @ step.query.weight[i] + step.query.bias[i]) / u.shape[1] ** 0.5
        key = past[:, i] @ step.key.weight[i] + step.key.bias[i]
        value = past[:, i] @ step.value.weight[i] + step.value.bias[i]
        affinity = query @ key.transpose(1, 2)
        n = affinity @ value / past.shape[2]
        pooled.append(pool_tokens(n.transpose(1, 2).reshape(u.shape), stride))
    return step.mix(torch.stack(pooled, 1), lattice)


def test_collapsed_recursion_equals_explicit() -> None:
    torch.manual_seed(0)
    width, lattice = 16, (3, 5)
    fusion = SpatialTemporalFusion(width, references=3).double()
    frames = [
        [torch.randn(2, width, lattice[0] * 32 // s, lattice[1] * 32 // s, dtype=torch.float64) for s in STRIDES]
        for _ in range(3)
    ]
    tokens = [torch.stack([pool_tokens(u, s) for u, s in zip(f, STRIDES, strict=True)], 1) for f in frames]
    explicit = fusion.first(tokens[0], lattice)
    for step, levels in zip(fusion.steps, frames[1:], strict=True):
        explicit = explicit_step(step, levels, explicit)
    collapsed = fusion.chain(tokens, lattice)
    error = (collapsed - explicit).abs().max() / explicit.abs().max()
    assert error < 1e-12, f"relative error {error:.2e}"


def test_fusion_equals_the_equations() -> None:
    """O_t = B Linear(concat V) / M with the pyramid written map by map."""
    torch.manual_seed(1)
    width, lattice = 8, (2, 3)
    fusion = SpatialTemporalFusion(width, 3).double()
    count = pool_tokens(torch.zeros(1, 1, *lattice), 32).shape[1]
    past = torch.randn(1, 4, count, width, dtype=torch.float64)
    levels = [
        torch.randn(1, width, lattice[0] * 32 // s, lattice[1] * 32 // s, dtype=torch.float64) for s in (8, 16, 32)
    ]
    out = fusion.fuse(fusion.target_queries(levels), past)

    maps = []
    for i, (u, conv) in enumerate(zip(levels, fusion.queries, strict=True)):
        query = conv(u)[0].flatten(1) / width**0.5
        key = past[0, i + 1] @ fusion.key.weight[i] + fusion.key.bias[i]
        maps.append([(k @ query).reshape(1, 1, *u.shape[-2:]) for k in key])
    pyramid = fusion.pyramid

    def block(layer: ConvNormReLU, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, layer.weight, padding=layer.kernel // 2)
        return F.relu(F.group_norm(x, 1, layer.gain.reshape(1), layer.offset.reshape(1), 1e-5))

    values = torch.cat([past[0, i] @ fusion.value.weight[i] + fusion.value.bias[i] for i in range(4)], -1)
    merged = fusion.merge_values(values)
    expected = torch.zeros_like(out)
    for m in range(count):
        s8, s16, s32 = (level[m] for level in maps)
        b = block(
            pyramid.merge_s16, upsample(block(pyramid.level_s32, s32), s16.shape[-2:]) + block(pyramid.level_s16, s16)
        )
        b = block(pyramid.merge_s8, upsample(b, s8.shape[-2:]) + block(pyramid.level_s8, s8))
        expected += merged[m].reshape(1, width, 1, 1) * b / count
    assert torch.allclose(out, expected, atol=1e-12)


def test_conv_norm_relu_equals_torch_modules() -> None:
    layer = ConvNormReLU(5).double()
    nn.init.constant_(layer.gain, 1.7)
    nn.init.constant_(layer.offset, 0.3)
    x = torch.randn(2, 5, 9, 7, dtype=torch.float64)
    conv, norm = nn.Conv2d(1, 1, 5, padding=2, bias=False).double(), nn.GroupNorm(1, 1).double()
    conv.weight.data, norm.weight.data, norm.bias.data = (
        layer.weight.data,
        layer.gain.data[None],
        layer.offset.data[None],
    )
    expected = F.relu(norm(conv(x.reshape(10, 1, 9, 7)))).reshape(x.shape)
    assert torch.allclose(layer(x), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "bound", "residual"),
    [(torch.float64, 1e-9, False), (torch.float64, 1e-9, True), (torch.float32, 1e-4, True)],
)
def test_stream_equals_clips_at_every_frame(config, dtype: torch.dtype, bound: float, residual: bool) -> None:
    """Frames 0..20, the warm-up included: the stream's logits are those of ``forward`` on an explicit clip."""
    config = config.model_copy(update={"stcf_residual": residual})
    model = random_model(config).to(dtype)
    frames = moving_frames(21, SIZE)
    names = ["red circle", "blue square", "background"]
    text = F.normalize(torch.randn(3, config.embed_dim, dtype=torch.float64), dim=-1).to(dtype)
    stream = Stream(
        _Exact(model, SIZE, text),
        Vocabulary.parse(names),
        ("{}",),
        config.gap,
        "farthest",
        embeddings=np.zeros((3, config.embed_dim)),
    )
    stream.set_last(frames[-1])
    batch = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    worst = 0.0
    for t, frame in enumerate(frames):
        streamed = torch.from_numpy(stream.logits(frame))
        clip = batch[clip_indices(t, config.references, config.gap)][None]
        whole = model(clip, batch[-1:], text).logits[0]
        worst = max(worst, float((streamed - whole).abs().max() / whole.abs().max()))
    assert worst < bound, f"largest relative error {worst:.2e}"


class _Exact(TorchEngine):
    """A torch engine in the model's own precision: embeddings are given as a tensor, not as float32 numpy."""

    def __init__(self, model: OV2VSS, size: tuple[int, int], text: torch.Tensor) -> None:
        super().__init__(model, size, None)
        self.text = text

    def decode(self, features, guidance, embeddings) -> np.ndarray:
        return super().decode(features, guidance, self.text.numpy())


def test_the_residual_is_a_sum_of_projected_levels(config) -> None:
    """O_t with it minus O_t without it: a 1x1 convolution of each level's query before scaling, upsampled by torch."""
    model = random_model(config.model_copy(update={"stcf_residual": True})).double()
    stcf = model.stcf
    frames = torch.from_numpy(np.stack(moving_frames(2, SIZE))).permute(0, 3, 1, 2)
    features = model.encode(frames[:1])
    past = model.past([features.tokens] * config.references, [], features.lattice)
    whole = model.fuse(features, past)
    convs, stcf.residual = stcf.residual, None
    expected = model.fuse(features, past)
    for conv, query, project, level in zip(convs, stcf.queries, model.project[1:], features.levels[1:], strict=True):
        x = query(project(level))
        x = torch.einsum("bchw,dc->bdhw", x, conv.weight[:, :, 0, 0]) + conv.bias[:, None, None]
        expected = expected + F.interpolate(x, whole.shape[-2:], mode="bilinear", align_corners=False)
    assert torch.allclose(whole, expected, atol=1e-10)


def test_stream_depends_on_its_past(config) -> None:
    """The equality above would also hold for a model that ignores time: it must not."""
    model = random_model(config).double()
    frames = torch.from_numpy(np.stack(moving_frames(10, SIZE))).permute(0, 3, 1, 2)
    text = F.normalize(torch.randn(3, config.embed_dim, dtype=torch.float64), dim=-1)
    now = model(frames[[0, 3, 6, 9]][None], frames[:1], text).logits
    frozen = model.forward_single(frames[9:10], text).logits
    other_context = model(frames[[0, 3, 6, 9]][None], 255 - frames[:1], text).logits
    scale = now.abs().max()
    assert (now - frozen).abs().max() / scale > 1e-4
    assert (now - other_context).abs().max() / scale > 1e-4
