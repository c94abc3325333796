"""Where CLIP's weights come from, and which files are opened."""

from __future__ import annotations

import hashlib
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ov2vss import clip as clip_module
from ov2vss.clip import RANDOM, ClipSource, build_clip, clip_settings, load_clip
from ov2vss.errors import OV2VSSError
from tests.conftest import shuffled


def test_openai_weights_need_quick_gelu_with_a_tag_and_with_a_file(
    small_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clip_settings("ViT-B-16", "openai").quick_gelu
    assert clip_settings("ViT-B-16-quickgelu", "").quick_gelu
    assert not clip_settings("ViT-B-16", "laion2b_s34b_b88k").quick_gelu
    assert clip_settings("ViT-B-16", "openai").mean == (0.48145466, 0.4578275, 0.40821073)
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
    with pytest.raises(OV2VSSError, match=r"1 of 74 tensors are missing, for example visual\.proj"):
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
