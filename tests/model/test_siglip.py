"""SigLIP's dense features and words against transformers' own model, and a bundle made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from ov2vss.clip import ClipSource, build_clip, load_clip
from ov2vss.errors import OV2VSSError
from ov2vss.model.dense import build_dense, check_recipe
from ov2vss.model.dense.siglip import SiglipDense
from ov2vss.model.training_free import TrainingFree
from ov2vss.text.siglip_text import SiglipText, find_tokenizer, siglip_tokenizer
from ov2vss_export.cli import main as export
from ov2vss_export.clip_writer import ClipRequest, export_clip, fitted_size
from ov2vss_runtime import Segmenter
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from tests.conftest import moving_frames, shuffled

CONTEXT, WIDTH = 16, 32
TEXTS = ["a red_circle.", "Sky!", "an OLD man, walking   slowly", "", "x" * 90]


@timm.models.register_model
def vit_small_patch8_siglip_32(pretrained: bool = False, **given: object) -> VisionTransformer:
    given = {k: v for k, v in given.items() if k in ("num_classes", "global_pool")}
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=WIDTH, depth=3, num_heads=2, class_token=False, **given
    )


@pytest.fixture(scope="module")
def small_siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a SigLIP with a few thousand weights a layer."""
    path = tmp_path_factory.mktemp("siglip") / "small-siglip.json"
    vision = {"image_size": 32, "timm_model_name": "vit_small_patch8_siglip_32", "timm_model_pretrained": False}
    vision |= {"timm_pool": "map", "timm_proj": "none"}
    text = {"context_length": CONTEXT, "vocab_size": 40, "hf_tokenizer_name": "nobody/small", "width": WIDTH}
    text |= {"heads": 2, "layers": 2, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    config = {"embed_dim": WIDTH, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision}
    path.write_text(json.dumps(config | {"text_cfg": text | {"norm_kwargs": {"eps": 1e-6}}}))
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of the kind that is published beside SigLIP's weights: pieces of words, padded with its end."""
    found = tmp_path_factory.mktemp("tokenizer")
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁red", -3.0), ("▁sky", -3.5), ("▁an", -3.0)]
    pieces += [(letter, -5.0 - n / 10) for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(found / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "</s>"}
    (found / "tokenizer_config.json").write_text(json.dumps(about | {"pad_token": "</s>"}))
    return found


def in_blocks(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Weights of transformers' layers under other names; query, key and value as one."""
    found = {}
    for name, tensor in state.items():
        if not name.startswith("encoder.layers.") or ".k_proj." in name or ".v_proj." in name:
            continue
        number, part = name.removeprefix("encoder.layers.").split(".", 1)
        if ".q_proj." in part:
            tensor = torch.cat([state[name.replace("q_proj", f"{x}_proj")] for x in "qkv"])
        part, kind = part.rsplit(".", 1)
        new = names[part] + ("_" if names[part].endswith("in_proj") else ".") + kind
        found[f"{number}.{new}"] = tensor
    return found


@pytest.fixture(scope="module")
def both(small_siglip: str) -> tuple[nn.Module, nn.Module]:
    """open_clip's network and transformers' with the same random weights."""
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": WIDTH, "intermediate_size": 128, "num_attention_heads": 2, "hidden_act": "gelu"}
    text = {"vocab_size": 40, "max_position_embeddings": CONTEXT, "num_hidden_layers": 2, "projection_size": WIDTH}
    vision = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 3}
    torch.manual_seed(1)
    theirs = SiglipModel(SiglipConfig(text_config=tower | text, vision_config=tower | vision))
    theirs = shuffled(theirs).eval().requires_grad_(False)
    v = {k.removeprefix("vision_model."): x for k, x in theirs.vision_model.state_dict().items()}
    t = {k.removeprefix("text_model."): x for k, x in theirs.text_model.state_dict().items()}
    made = {"logit_scale": theirs.logit_scale[0], "logit_bias": theirs.logit_bias[0]}
    plain = {
        "patch_embed.proj": "embeddings.patch_embedding",
        "norm": "post_layernorm",
        "attn_pool.proj": "head.attention.out_proj",
        "attn_pool.norm": "head.layernorm",
        "attn_pool.mlp.fc1": "head.mlp.fc1",
        "attn_pool.mlp.fc2": "head.mlp.fc2",
    }
    for kind in ("weight", "bias"):
        made |= {f"visual.trunk.{ours}.{kind}": v[f"{theirs}.{kind}"] for ours, theirs in plain.items()}
        made[f"visual.trunk.attn_pool.q.{kind}"] = v[f"head.attention.in_proj_{kind}"][:WIDTH]
        made[f"visual.trunk.attn_pool.kv.{kind}"] = v[f"head.attention.in_proj_{kind}"][WIDTH:]
        made[f"text.ln_final.{kind}"] = t[f"final_layer_norm.{kind}"]
        made[f"text.text_projection.{kind}"] = t[f"head.{kind}"]
    made["visual.trunk.pos_embed"] = v["embeddings.position_embedding.weight"][None]
    made["visual.trunk.attn_pool.latent"] = v["head.probe"]
    made["text.token_embedding.weight"] = t["embeddings.token_embedding.weight"]
    made["text.positional_embedding"] = t["embeddings.position_embedding.weight"]
    names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.q_proj": "attn.qkv"}
    names |= {"self_attn.out_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    made |= {f"visual.trunk.blocks.{k}": x for k, x in in_blocks(v, names).items()}
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.q_proj": "attn.in_proj"}
    names |= {"self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    made |= {f"text.transformer.resblocks.{k}": x for k, x in in_blocks(t, names).items()}
    ours = build_clip(small_siglip, "")
    ours.load_state_dict(made, strict=True)
    return ours, theirs


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("frames", [1, 2])
def test_every_place_goes_through_the_pooling_head_of_transformers_alone(
    both: tuple[nn.Module, nn.Module], frames: int
) -> None:
    ours, theirs = both
    image = torch.rand(frames, 3, 32, 32)
    dense = build_dense(ours.visual, "value", 16, (0.0,) * 3, (1.0,) * 3)
    seen = theirs.vision_model(image)
    assert apart(ours.visual(image), seen.pooler_output) <= 2e-6
    found = dense(image, []).flatten(2).transpose(1, 2)
    assert found.shape == (frames, 16, WIDTH)
    for place in range(16):
        wanted = theirs.vision_model.head(seen.last_hidden_state[:, place : place + 1])
        assert apart(found[:, place], wanted / wanted.norm(dim=-1, keepdim=True)) <= 2e-6


def test_frames_of_another_aspect_have_positions_of_their_own(both: tuple[nn.Module, nn.Module]) -> None:
    dense = build_dense(both[0].visual, "value", 24, (0.5,) * 3, (0.5,) * 3)
    assert dense.grid(64, 96) == (4, 6)
    dense.prepare(64, 96)
    found = dense(torch.rand(1, 3, 64, 96), [])
    assert found.shape == (1, WIDTH, 4, 6)
    assert torch.allclose(found.norm(dim=1), torch.ones(1, 4, 6), atol=1e-5)


def test_texts_become_the_numbers_of_open_clips_tokenizer(folder: Path) -> None:
    theirs = open_clip.tokenizer.HFTokenizer(str(folder), context_length=CONTEXT, clean="canonicalize")
    ours = siglip_tokenizer(folder, CONTEXT)
    assert [ours.encode(text).ids for text in TEXTS] == theirs(TEXTS).tolist()


def test_words_are_where_transformers_and_open_clip_put_them(both: tuple[nn.Module, nn.Module], folder: Path) -> None:
    ours, theirs = both
    encoder = SiglipText(ours, folder).eval()
    tokens = torch.tensor([encoding.ids for encoding in encoder.tokenizer.encode_batch(TEXTS)])
    found = encoder.encode(TEXTS)
    wanted = theirs.text_model(tokens).pooler_output
    assert apart(found, wanted / wanted.norm(dim=-1, keepdim=True)) <= 2e-6
    assert apart(found, ours.encode_text(tokens, normalize=True)) <= 1e-6


def test_a_bundle_gives_torchs_logits_for_any_words(
    both: tuple[nn.Module, nn.Module], small_siglip: str, folder: Path, tmp_path: Path
) -> None:
    place, size = tmp_path / "hub", (64, 96)
    place.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_bytes((folder / name).read_bytes())
    save_file({k: v.contiguous() for k, v in both[0].state_dict().items()}, place / "open_clip_model.safetensors")
    gates = export_clip(
        ClipRequest(
            checkpoint=None,
            vocabulary=Vocabulary.parse("red circle; sky"),
            out=tmp_path / "bundle",
            size=size,
            rollout=45,
            decoder_parts=False,
            model=small_siglip,
            tag="",
            source=ClipSource(str(place)),
            dense="value",
        )
    )
    assert all(gate.passed for found in gates.values() for gate in found)
    stream = Segmenter.load(tmp_path / "bundle").stream(None, "old man; sky; red ball")
    network = load_clip(small_siglip, "", ClipSource(str(place)))
    model = TrainingFree(build_dense(network.visual, "value", 96, (0.48145466, 0.4578275, 0.40821073),
                                     (0.26862954, 0.26130258, 0.27577711)), size)  # fmt: skip
    frame = moving_frames(1, size)[0]
    with torch.no_grad():
        wanted = model.decode(model.encode(torch.from_numpy(frame)[None])[0], torch.from_numpy(stream.embeddings))
    found = stream.logits(frame)
    assert np.linalg.norm(found - wanted.numpy()) <= 5e-6 * np.linalg.norm(wanted.numpy())
    prompts = [text.replace("{}", "old man") for text in stream.engine.bundle.manifest.vocabulary.templates]
    mean = SiglipText(network, place).eval().encode(prompts).mean(0)
    assert apart(torch.from_numpy(stream.embeddings[0]), mean / mean.norm()) <= 2e-6


def test_what_does_not_fit_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for recipe in ("neighbour", "calibrated"):
        args = ["--clip", "ViT-B-16-SigLIP/webli", "--clip-weights", "random", "--dense", recipe]
        done = CliRunner().invoke(export, [*args, "--out", str(tmp_path / "out")])
        assert done.exit_code == 1
        assert f"the recipe {recipe} needs a class token, which SigLIP has not; take the recipe value" in done.output
    done = CliRunner().invoke(export, [*args[:5], "value", "--out", str(tmp_path / "out")])
    assert "the tokenizer of ViT-B-16-SigLIP is not on this machine" in done.output
    assert "put tokenizer.json and tokenizer_config.json beside the weights" in done.output
    with pytest.raises(OV2VSSError, match="the words of nllb-clip-base-siglip are read by facebook/nllb"):
        find_tokenizer("nllb-clip-base-siglip", ClipSource())
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(OV2VSSError, match="cannot be read"):
        siglip_tokenizer(tmp_path, CONTEXT)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
    with pytest.raises(OV2VSSError, match="no token '<pad>' to pad with"):
        siglip_tokenizer(tmp_path, CONTEXT)


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP-384", "ViT-B-32-SigLIP2-256"])
def test_published_architectures_fit(model: str) -> None:
    config = open_clip.get_model_config(model)
    with torch.device("meta"):
        visual = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])
    assert check_recipe(visual, "value") is SiglipDense
    side = int(visual.trunk.patch_embed.patch_size[0])
    assert fitted_size(model, (300, 520)) == (300 // side * side, 520 // side * side)
