import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ov2vss.model.pooling import TokenMixer, average_matrix, pool_grids, pool_tokens, resize_average


@pytest.mark.parametrize(("size_in", "size_out"), [(15, 8), (15, 4), (27, 9), (7, 7), (3, 1), (11, 4)])
def test_average_matrix_is_adaptive_pooling(size_in: int, size_out: int) -> None:
    x = torch.randn(1, 2, size_in, dtype=torch.float64)
    expected = F.adaptive_avg_pool1d(x, size_out)
    assert torch.allclose(x @ torch.from_numpy(average_matrix(size_in, size_out)).T, expected, atol=1e-14)
    assert np.allclose(average_matrix(size_in, size_out).sum(1), 1)


def test_token_count_at_480p() -> None:
    assert pool_grids((15, 27)) == [(15, 27), (8, 14), (5, 9), (4, 7)]
    assert pool_tokens(torch.zeros(1, 1, 15, 27), 32).shape == (1, 590, 1)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_tokens_are_adaptive_averages_of_the_lattice(stride: int) -> None:
    lattice = (3, 5)
    level = torch.randn(2, 4, lattice[0] * 32 // stride, lattice[1] * 32 // stride, dtype=torch.float64)
    on_lattice = F.adaptive_avg_pool2d(level, lattice)
    expected = torch.cat([F.adaptive_avg_pool2d(on_lattice, g).flatten(2) for g in pool_grids(lattice)], dim=2)
    assert torch.allclose(pool_tokens(level, stride), expected.transpose(1, 2), atol=1e-12)


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (12, 7)])
def test_resize_average_matches_torch(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 12, 18, dtype=torch.float64)
    assert torch.allclose(resize_average(x, size), F.adaptive_avg_pool2d(x, size), atol=1e-12)


def test_mixer_is_per_level_depthwise_plus_layer_norm() -> None:
    torch.manual_seed(0)
    lattice, width = (3, 4), 6
    mixer = TokenMixer(width).double()
    torch.nn.init.normal_(mixer.norm_weight)
    torch.nn.init.normal_(mixer.norm_bias)
    count = sum(h * w for h, w in pool_grids(lattice))
    tokens = torch.randn(2, 4, count, width, dtype=torch.float64)
    out = mixer(tokens, lattice)
    for level in range(4):
        start, parts = 0, []
        for conv, (h, w) in zip(mixer.depthwise, pool_grids(lattice), strict=True):
            x = tokens[:, level, start : start + h * w].transpose(1, 2).reshape(2, width, h, w)
            weight = conv.weight[level * width : (level + 1) * width]
            parts.append((x + F.conv2d(x, weight, padding=1, groups=width)).flatten(2).transpose(1, 2))
            start += h * w
        expected = F.layer_norm(torch.cat(parts, 1), (width,), mixer.norm_weight[level, 0], mixer.norm_bias[level, 0])
        assert torch.allclose(out[:, level], expected, atol=1e-12)
