"""CLIP: where weights come from, dense features against an independent formulation, text against open_clip."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ov2vss import clip as clip_module
from ov2vss.clip import RANDOM, ClipSource, build_clip, clip_settings, load_clip
from ov2vss.errors import OV2VSSError
from ov2vss.model.clip_dense import ClipDense, resize
from ov2vss.model.config import ModelConfig
from ov2vss.presets import PRESETS
from ov2vss.text.clip_text import ClipText, clip_tokenizer, imagenet_templates

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def shuffled(network: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """All weights away from their initial values, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


# -- dense features ----------------------------------------------------------------------------------------------------


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
    dense = ClipDense(network.visual, tokens=16, mean=MEAN, std=STD).double()
    frame = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert dense.grid(32, 32) == (4, 4)
    with torch.no_grad():
        got = dense(frame, [])
    weights = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    image = (frame[0].numpy() - dense.mean[0].numpy()) / dense.std[0].numpy()
    expected = _dense_by_hand(weights, image, 2, 8, weights["visual.positional_embedding"], quick)
    assert got.shape == (1, 64, 4, 4)
    assert np.abs(got[0].flatten(1).T.numpy() - expected).max() < 1e-6  # exp and erf of torch against numpy's


def test_dense_features_keep_the_rest_of_the_network(small_clip: str) -> None:
    """With the last block's attention put back, the class token gives open_clip's own image embedding."""
    network = shuffled(build_clip(small_clip, ""))
    dense = ClipDense(network.visual, tokens=16, mean=MEAN, std=STD)
    frame = torch.rand(2, 3, 32, 32)
    v = network.visual
    with torch.no_grad():
        normalised = (frame - dense.mean) / dense.std
        x = v.conv1(normalised).flatten(2).transpose(1, 2) + dense.positions((4, 4))
        token = (v.class_embedding + v.positional_embedding[0]).expand(2, 1, -1)
        x = v.ln_pre(torch.cat([token, x], 1))
        for block in v.transformer.resblocks:
            x = block(x)
        expected = F.normalize(v.ln_post(x[:, 0]) @ v.proj, dim=-1)
        assert torch.allclose(network.encode_image(normalised, normalize=True), expected, atol=1e-5)


def test_positions_are_resized_as_open_clip_does(small_clip: str) -> None:
    network = shuffled(build_clip(small_clip, ""))
    dense = ClipDense(network.visual, tokens=24, mean=MEAN, std=STD)
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
    dense = ClipDense(build_clip(small_clip, "").visual, tokens=576, mean=MEAN, std=STD)
    assert dense.grid(*frame) == grid


def test_other_image_towers_are_refused() -> None:
    network = open_clip.create_model("RN50")
    with pytest.raises(OV2VSSError, match="not a ModifiedResNet"):
        ClipDense(network.visual, 576, MEAN, STD)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_openai_weights_need_quick_gelu_with_a_tag_and_with_a_file(
    small_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clip_settings("ViT-B-16", "openai").quick_gelu
    assert clip_settings("ViT-B-16-quickgelu", "").quick_gelu
    assert not clip_settings("ViT-B-16", "laion2b_s34b_b88k").quick_gelu
    assert clip_settings("ViT-B-16", "openai").mean == MEAN
    # The same for weights that are made here: a tag "openai" of the small network, cached or named as a file.
    weights = shuffled(build_clip(small_clip, "")).state_dict()
    file = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in weights.items()}, file)
    tag = {"hf_hub": "somebody/small/", "quick_gelu": True}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda model: ["openai"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag)
    monkeypatch.setattr(
        clip_module, "try_to_load_from_cache", lambda repo, name: str(file) if name.endswith(".safetensors") else None
    )
    reference = open_clip.create_model(small_clip, pretrained=str(file), force_quick_gelu=True).eval()
    image, tokens = torch.rand(1, 3, 32, 32), open_clip.tokenize(["a road"])
    for source in (ClipSource(), ClipSource(str(file))):
        network = load_clip(small_clip, "openai", source)
        assert "QuickGELU" in str(network.visual)
        assert "QuickGELU" in str(network.transformer)
        with torch.no_grad():
            assert torch.equal(network.encode_image(image), reference.encode_image(image))
            assert torch.equal(network.encode_text(tokens), reference.encode_text(tokens))


def test_weights_that_are_not_there(tmp_path: Path, small_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_module, "try_to_load_from_cache", lambda repo, name: None)
    with pytest.raises(
        OV2VSSError, match="--clip-weights FILE, put them into the local hub cache, or allow --download"
    ):
        load_clip("ViT-B-16", "openai", ClipSource())
    with pytest.raises(OV2VSSError, match="do not exist"):
        load_clip(small_clip, "", ClipSource(str(tmp_path / "no.safetensors")))
    with pytest.raises(OV2VSSError, match="open_clip has no model 'ViT-Z'"):
        clip_settings("ViT-Z", "openai")
    with pytest.raises(OV2VSSError, match="no weights 'nobody' for 'ViT-B-16'"):
        clip_settings("ViT-B-16", "nobody")


def test_weights_that_cannot_be_used(tmp_path: Path, small_clip: str) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00garbage!")
    with pytest.raises(OV2VSSError, match="cannot be read as weights"):
        load_clip(small_clip, "", ClipSource(str(broken)))
    other = tmp_path / "other.safetensors"
    weights = build_clip(small_clip, "").state_dict()
    weights.pop("visual.proj")
    save_file(weights, other)
    with pytest.raises(OV2VSSError, match=r"cannot be read as weights .*visual\.proj"):
        load_clip(small_clip, "", ClipSource(str(other)))


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(__file__).parent / "harmful-was-run",))


def test_a_pickle_is_not_executed(tmp_path: Path, small_clip: str) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": Harmful()}, file)
    with pytest.raises(OV2VSSError, match="cannot be read as weights"):
        load_clip(small_clip, "", ClipSource(str(file)))
    assert not (Path(__file__).parent / "harmful-was-run").exists()


def test_torchscript_is_opened_only_if_it_is_the_published_file(
    tmp_path: Path, small_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = shuffled(build_clip(small_clip, ""))
    file = tmp_path / "program.pt"

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in network.state_dict().items():
                parent = self
                *path, leaf = name.split(".")
                for part in path:
                    if not hasattr(parent, part):
                        parent.add_module(part, torch.nn.Module())
                    parent = getattr(parent, part)
                parent.register_buffer(leaf, value.half())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.trace(Holder(), torch.zeros(1)), str(file))
    with pytest.raises(OV2VSSError, match="TorchScript program and not the file that OpenAI published"):
        load_clip(small_clip, "", ClipSource(str(file)))
    import hashlib

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda model: ["openai"])
    monkeypatch.setattr(
        open_clip,
        "get_pretrained_cfg",
        lambda model, tag: {"url": f"https://x/models/{digest}/a.pt", "quick_gelu": True},
    )
    loaded = load_clip(small_clip, "openai", ClipSource(str(file)))
    expected = network.state_dict()
    assert all(torch.equal(v, expected[k].half().float()) for k, v in loaded.state_dict().items())


def test_random_weights_are_always_the_same(small_clip: str) -> None:
    torch.manual_seed(5)
    one = load_clip(small_clip, "", ClipSource(RANDOM)).state_dict()
    torch.rand(3)
    two = load_clip(small_clip, "", ClipSource(RANDOM)).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)


# -- text --------------------------------------------------------------------------------------------------------------


def awkward_strings() -> list[str]:
    """Over 500 strings: case, accents, scripts, emoji, punctuation, spaces, digits, long and empty ones."""
    words = """
        road Car TRUCK café naïve Ångström straße ÉCOLE 日本語 汽车 русский ТЕКСТ αβγ مرحبا हिन्दी 한국어 ไทย əŋ
        traffic-sign table_or_desk billboard_or_Bulletin_Board it's we'll I'VE don't o'clock rock'n'roll 3rd 1234
        5.7 50% $5 №5 ½ ² Ⅳ C++ a&b #tag @user (note) [x] {y} «q» — … “curly” ‘quotes’ l’eau ﬁre ﬂow ＦＵＬＬ！
        😀 a😀b 👨‍👩‍👧 🇩🇪 <b> a<b!c? ... !!! ''' "x" 's 'S
    """.split()  # noqa: SIM905
    words += ["zero\u200bwidth", "soft\u00adhyphen", "nbsp\u00a0x", "e\u0301", "tab\tx", "new\nline"]
    strings = ["", " ", "\n", "x" * 400, " ".join(["word"] * 120), "!" * 200, "é" * 150, *words]
    strings += [f"a photo of a {w}." for w in words] + [w.upper() for w in words] + [f" {w}  {w[::-1]} " for w in words]
    rng = np.random.default_rng(0)
    plain = [chr(c) for c in range(32, 127)]
    strings += ["".join(rng.choice(plain, rng.integers(1, 60))) for _ in range(200)]
    # One script a string: a mixture looks like wrongly decoded text, which open_clip's tokenizer repairs.
    for first, last in (
        (0x100, 0x180),
        (0x1C4, 0x250),
        (0x391, 0x3A2),
        (0x3B1, 0x3C2),
        (0x410, 0x450),
        (0xAC00, 0xAE00),
    ):
        letters = [chr(c) for c in range(first, last)]
        strings += [" ".join(rng.choice(letters, rng.integers(1, 8))) for _ in range(25)]
    return [s for s in strings if "&" not in s or ";" not in s]


def test_tokenizer_equals_open_clips_own() -> None:
    mine, original = clip_tokenizer(77), open_clip.tokenizer.SimpleTokenizer()
    strings = awkward_strings()
    assert len(strings) >= 500
    tokens = original(strings).tolist()
    end = original.eot_token_id
    wrong = []
    for string, expected in zip(strings, tokens, strict=True):
        expected = expected[: expected.index(end) + 1]
        if mine.encode(string).ids != expected:
            wrong.append(string)
    assert not wrong
    assert unicodedata.normalize("NFC", "e\u0301") == "é"
    assert mine.encode("<end_of_text>").ids == original(["<end_of_text>"])[0, :3].tolist()


def test_text_tower_equals_open_clip(small_clip: str) -> None:
    """Also for padded prompts of different lengths, which open_clip pads to 77 and this one to the longest."""
    network = shuffled(build_clip(small_clip, ""))
    encoder = ClipText(network).eval()
    prompts = ["", "car", "a photo of a billboard_or_Bulletin_Board in the rain.", " ".join(["word"] * 120)]
    for group in (prompts[:2], prompts[:3], prompts):
        with torch.no_grad():
            expected = network.encode_text(open_clip.tokenize(group), normalize=True)
        assert torch.allclose(encoder.encode(group), expected, atol=1e-5)


def test_eighty_templates_are_averaged_and_normalised_again(small_clip: str) -> None:
    from ov2vss.train.vocabulary import TrainingVocabulary
    from ov2vss_runtime.vocabulary import Vocabulary

    network = shuffled(build_clip(small_clip, ""))
    assert len(imagenet_templates()) == len(set(imagenet_templates())) == 80
    config = ModelConfig(templates=("imagenet80",), embed_dim=64)
    assert config.prompts == imagenet_templates()
    names = ["road", "trash_can", "Mobile_phone"]
    words = TrainingVocabulary(ClipText(network), Vocabulary.from_lines(names, "test"), config)
    expected = open_clip.build_zero_shot_classifier(
        network, open_clip.tokenizer.SimpleTokenizer(), names, open_clip.OPENAI_IMAGENET_TEMPLATES
    ).T
    got = words.draw(np.random.default_rng(0))
    assert torch.allclose(torch.nn.functional.normalize(got, dim=-1), got, atol=1e-6)
    assert torch.allclose(got, expected, atol=1e-5)


def test_paper_presets() -> None:
    for name, backbone in (("ov2vss-r101", "resnet101"), ("ov2vss-pvt-b2", "pvt_v2_b2")):
        preset = PRESETS[name]
        assert (preset.model.backbone, preset.model.image_encoder, preset.model.text_encoder) == (
            backbone,
            "clip",
            "clip",
        )
        assert (preset.lr, preset.head_lr_factor, preset.weight_decay, preset.warmup) == (3e-6, 10.0, 1e-2, 1500)
        assert (preset.batch, preset.iterations, preset.poly_power, preset.crop) == (4, 100_000, 0.9, (480, 480))
        assert (preset.alpha, preset.beta, preset.gamma, preset.scale) == (1.0, 1.0, 0.0, (0.5, 2.0))
        assert preset.model.rfe_residual is False
        assert preset.prompt_sampling == 0
