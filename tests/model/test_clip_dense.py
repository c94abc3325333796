"""CLIP's dense image features against an independent formulation and against open_clip."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from ov2vss.clip import build_clip
from ov2vss.errors import OV2VSSError
from ov2vss.model.dense.resize import resize
from ov2vss.model.dense.value import ValueDense
from tests.conftest import shuffled

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def _dense_by_hand(
    weights: dict[str, np.ndarray], image: np.ndarray, heads: int, patch: int, positions: np.ndarray, quick: bool
) -> np.ndarray:
    """CLIP's image tower in numpy, one patch and one head at a time; the last block without attention.

    ``image`` is normalised, ``[3, h, w]``; the result is ``[rows * columns, D]``, unit length.
    """
    from scipy.special import erf

    w = {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}

    def act(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-1.702 * x)) if quick else 0.5 * x * (1 + erf(x / np.sqrt(2)))

    def mlp(x: np.ndarray, p: str) -> np.ndarray:
        x = _layer_norm(x, w[p + "ln_2.weight"], w[p + "ln_2.bias"])
        hidden = act(x @ w[p + "mlp.c_fc.weight"].T + w[p + "mlp.c_fc.bias"])
        return hidden @ w[p + "mlp.c_proj.weight"].T + w[p + "mlp.c_proj.bias"]

    kernel = w["conv1.weight"].reshape(len(w["conv1.weight"]), -1)
    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    patches = [
        kernel @ image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(-1)
        for r in range(rows)
        for c in range(columns)
    ]
    x = np.stack([w["class_embedding"], *patches]) + positions
    x = _layer_norm(x, w["ln_pre.weight"], w["ln_pre.bias"])
    width = x.shape[1]
    layers = 1 + max(int(k.split(".")[2]) for k in w if k.startswith("transformer.resblocks."))
    for layer in range(layers):
        p = f"transformer.resblocks.{layer}."
        normed = _layer_norm(x, w[p + "ln_1.weight"], w[p + "ln_1.bias"])
        qkv = normed @ w[p + "attn.in_proj_weight"].T + w[p + "attn.in_proj_bias"]
        q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
        if layer == layers - 1:
            mixed = v
        else:
            mixed = np.zeros_like(v)
            size = width // heads
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                for i in range(len(x)):
                    scores = k[:, part] @ q[i, part] / np.sqrt(size)
                    share = np.exp(scores - scores.max())
                    mixed[i, part] = (share / share.sum()) @ v[:, part]
        x = x + mixed @ w[p + "attn.out_proj.weight"].T + w[p + "attn.out_proj.bias"]
        x = x + mlp(x, p)
    x = _layer_norm(x[1:], w["ln_post.weight"], w["ln_post.bias"]) @ w["proj"]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("quick", [False, True])
def test_dense_features_against_a_formulation_by_hand(small_clip: str, quick: bool) -> None:
    torch.manual_seed(0)
    network = shuffled(open_clip.create_model(small_clip, force_quick_gelu=quick)).double().eval()
    dense = ValueDense(network.visual, tokens=16, mean=MEAN, std=STD).double()
    frame = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert dense.grid(32, 32) == (4, 4)
    with torch.no_grad():
        got = dense(frame, [])
    weights = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    image = (frame[0].numpy() - dense.mean[0].numpy()) / dense.std[0].numpy()
    expected = _dense_by_hand(weights, image, 2, 8, weights["visual.positional_embedding"], quick)
    assert got.shape == (1, 64, 4, 4)
    assert np.abs(got[0].flatten(1).T.numpy() - expected).max() < 1e-6  # exp and erf of torch against numpy's


def test_positions_are_resized_as_open_clip_does(small_clip: str) -> None:
    network = shuffled(build_clip(small_clip, ""))
    dense = ValueDense(network.visual, tokens=24, mean=MEAN, std=STD)
    for size in ((24, 64), (48, 24), (32, 32)):
        wanted = open_clip.create_model(small_clip, force_image_size=size)
        state = {"visual.positional_embedding": network.visual.positional_embedding}
        open_clip.model.resize_pos_embed(state, wanted)
        expected = state["visual.positional_embedding"][1:]
        got = dense.positions((size[0] // 8, size[1] // 8))
        assert got.shape == expected.shape
        assert torch.allclose(got, expected, atol=1e-5)


def test_frames_are_resized_as_for_clip() -> None:
    image = torch.rand(1, 3, 60, 108, dtype=torch.float64)
    expected = F.interpolate(image, (36, 64), mode="bicubic", antialias=True)
    assert torch.allclose(resize(image, (36, 64)), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("frame", "grid"), [((480, 864), (18, 32)), ((480, 480), (24, 24)), ((352, 640), (18, 32)), ((864, 480), (32, 18))]
)
def test_grid_has_the_aspect_of_the_frame(small_clip: str, frame: tuple[int, int], grid: tuple[int, int]) -> None:
    dense = ValueDense(build_clip(small_clip, "").visual, tokens=576, mean=MEAN, std=STD)
    assert dense.grid(*frame) == grid


def test_other_image_towers_are_refused() -> None:
    network = open_clip.create_model("RN50")
    with pytest.raises(OV2VSSError, match="not a ModifiedResNet"):
        ValueDense(network.visual, 576, MEAN, STD)
