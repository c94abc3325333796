"""Rewritten forms against the textbook ones."""

import pytest
import torch
import torch.nn.functional as F

from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS, ModelConfig
from ov2vss.model.attention import Attention
from ov2vss.model.backbone import Backbone
from ov2vss.model.cost_volume import CostRefinement, cosine_volume
from ov2vss.model.decoder import Decoder
from ov2vss.model.random_frame import RegionContext
from ov2vss.model.stcf import upsample
from ov2vss.model.text_refinement import TextRefinement


def test_attention_equals_torch() -> None:
    torch.manual_seed(0)
    attention = Attention(24, 4).double()
    x, source = torch.randn(2, 5, 24, dtype=torch.float64), torch.randn(2, 9, 24, dtype=torch.float64)
    expected, _ = F.multi_head_attention_forward(
        x.transpose(0, 1),
        source.transpose(0, 1),
        source.transpose(0, 1),
        24,
        4,
        None,
        None,
        None,
        None,
        False,
        0.0,
        attention.out.weight,
        attention.out.bias,
        use_separate_proj_weight=True,
        q_proj_weight=attention.query.weight,
        k_proj_weight=attention.key.weight,
        v_proj_weight=attention.value.weight,
    )
    assert torch.allclose(attention(x, *attention.memory(source)), expected.transpose(0, 1), atol=1e-12)


@pytest.mark.parametrize("fusion", ["concat", "add"])
def test_split_decoder_equals_concatenation(fusion: str) -> None:
    """Linear over [X~, position] and conv3x3 over [X^, O^_t], written with real concatenations."""
    torch.manual_seed(0)
    c, p, width, hidden, n = 4, 6, 8, 12, 3
    cost, decoder = CostRefinement(c, p).double(), Decoder(c, width, hidden, 4, fusion).double()
    volume = torch.randn(n, 1, 6, 9, dtype=torch.float64)
    position = torch.randn(1, p, 6, 9, dtype=torch.float64)
    o_hat = torch.randn(1, width, 12, 18, dtype=torch.float64)
    got = decoder(cost(volume), decoder.guidance(o_hat, cost.shared(position)))

    refined = F.relu(cost.conv(volume))
    linear = torch.cat([cost.per_class.weight, cost.shared.weight], 1)
    x_hat = F.conv2d(torch.cat([refined, position.expand(n, -1, -1, -1)], 1), linear, cost.shared.bias)
    x_hat = upsample(x_hat, (12, 18))
    if fusion == "concat":
        kernel = torch.cat([decoder.cost_conv.weight, decoder.video_conv.weight], 1)
        x = F.conv2d(torch.cat([x_hat, o_hat.expand(n, -1, -1, -1)], 1), kernel, decoder.cost_conv.bias, padding=1)
    else:
        x = decoder.cost_conv(x_hat + decoder.video_conv(o_hat))
    expected = decoder.logit(F.relu(decoder.norm(x)))
    assert torch.allclose(got, expected, atol=1e-10)


def test_cosine_volume_is_a_cosine() -> None:
    text = F.normalize(torch.randn(2, 3, 8, dtype=torch.float64), dim=-1)
    dense = F.normalize(torch.randn(2, 8, 4, 5, dtype=torch.float64), dim=1)
    expected = F.cosine_similarity(text[:, :, :, None, None], dense[:, None], dim=2)
    assert torch.allclose(cosine_volume(text, dense), expected, atol=1e-12)


def test_regions_are_convex_combinations_of_tokens() -> None:
    context = RegionContext(8, 5)
    tokens = torch.randn(1, 4, 6 + 2 + 1 + 1, 8)
    lattice = (2, 3)
    d = context.merge(context.mix(tokens, lattice).transpose(1, 2).flatten(2))
    maps = context.region_maps(d)[0]
    expected = torch.stack([(torch.softmax(maps[:, r], 0)[:, None] * d[0]).sum(0) for r in range(5)])
    assert torch.allclose(context(tokens, lattice)[0], expected, atol=1e-6)


def test_refined_text_is_unit_length_and_starts_near_the_encoder() -> None:
    refinement = TextRefinement(16, 4, ffn=True)
    text = F.normalize(torch.randn(3, 16), dim=-1)
    dense = F.normalize(torch.randn(1, 16, 4, 4), dim=1)
    refined = refinement(text, *refinement.memory(dense))
    assert torch.allclose(refined.norm(dim=-1), torch.ones(1, 3), atol=1e-5)
    assert (refined[0] * text).sum(-1).min() > 0.99


@pytest.mark.parametrize(
    "change",
    [{"stcf": False}, {"rfe": False}, {"vte": False}, {"fusion": "add"}, {"refine_ffn": False}, {"references": 1}],
)
def test_ablations_run(config: ModelConfig, change: dict) -> None:
    model = OV2VSS(ModelConfig.model_validate(config.model_dump() | change), aux_classes=4).eval()
    frames = torch.randint(0, 256, (2, model.config.references + 1, 3, 96, 128), dtype=torch.uint8)
    text = F.normalize(torch.randn(5, config.embed_dim), dim=-1)
    prediction = model(frames, frames[:, 0], text)
    assert prediction.logits.shape == (2, 5, 12, 16)
    assert prediction.aux.shape == (2, 4, 12, 16)


def test_unusable_backbones_are_named() -> None:
    with pytest.raises(OV2VSSError, match="not a timm model"):
        Backbone("resnet999", (0.5,) * 3, (0.5,) * 3, True)
    with pytest.raises(OV2VSSError, match="strides"):
        Backbone("vit_tiny_patch16_224", (0.5,) * 3, (0.5,) * 3, True)


def test_frozen_norms_stay_frozen_in_training() -> None:
    backbone = Backbone("tf_efficientnet_lite0", (0.5,) * 3, (0.5,) * 3, freeze_norm=True).train()
    before = backbone.net.bn1.running_mean.clone()
    backbone(torch.rand(1, 3, 64, 64))
    assert torch.equal(before, backbone.net.bn1.running_mean)
    assert not backbone.net.bn1.weight.requires_grad


@pytest.mark.parametrize("grid", [(3, 4), (5, 7), (9, 16)])
def test_any_grid_of_dense_features_will_do(config: ModelConfig, grid: tuple[int, int]) -> None:
    """An image encoder may choose its own grid (CLIP's patches do not divide the frame like the backbone does)."""

    class OtherGrid(torch.nn.Module):
        def forward(self, frame: torch.Tensor, levels: list[torch.Tensor]) -> torch.Tensor:
            return F.normalize(F.adaptive_avg_pool2d(frame, grid).mean(1, keepdim=True) + directions, dim=1)

    directions = torch.randn(1, config.embed_dim, 1, 1)
    model = OV2VSS(config).eval()
    model.image_encoder = OtherGrid()
    frames = torch.randint(0, 256, (1, 5, 3, 96, 128), dtype=torch.uint8)
    text = F.normalize(torch.randn(5, config.embed_dim), dim=-1)
    prediction = model(frames[:, :4], frames[:, 4], text)
    assert prediction.logits.shape == (1, 5, 12, 16)
    assert prediction.volume.shape == (1, 5, *grid)
    assert prediction.logits.isfinite().all()
