"""Ten weight files that people have, for the backbone and for CLIP: what is taken, what is refused, what is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from ov2vss.clip import ClipSource, build_clip, load_clip
from ov2vss.errors import OV2VSSError
from ov2vss.model.backbone import Backbone
from ov2vss.train.weights import load_backbone_weights
from tests.conftest import shuffled

NAME, DEEPER = "resnet18", "resnet34"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def right() -> State:
    """A classifier of another number of classes, every tensor away from its initial value."""
    return shuffled(timm.create_model(NAME, num_classes=7)).state_dict()


def _prefixed(state: State, prefix: str) -> State:
    return {prefix + k: v for k, v in state.items()}


WRAPPED: dict[str, Callable[[State], object]] = {
    "right": lambda s: s,
    "model": lambda s: {"model": s, "epoch": 3},
    "state_dict of DDP": lambda s: {"state_dict": _prefixed(s, "module."), "optimizer": {"state": {}}},
    "model of a detector": lambda s: {"model": _prefixed(s, "backbone.") | {"neck.weight": torch.ones(1)}},
    "Lightning": lambda s: {"state_dict": _prefixed(s, "model.backbone."), "pytorch-lightning_version": "2"},
    "compiled": lambda s: _prefixed(s, "_orig_mod."),
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "old, without counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_backbone_takes_every_tensor_of_a_file_that_fits(
    kind: str, right: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(WRAPPED[kind](right), tmp_path / "weights.pth")
    backbone = Backbone(NAME, (0.5,) * 3, (0.5,) * 3, True)
    with caplog.at_level(logging.INFO):
        load_backbone_weights(backbone, NAME, str(tmp_path / "weights.pth"))
    state = backbone.net.state_dict()
    counted = [k for k in state if "num_batches" not in k]
    rounded = Tensor.half if kind == "half" else Tensor.float
    assert len(counted) == 100  # 20 convolutions and 20 norms of four tensors
    assert all(torch.equal(state[k], rounded(right[k]).float()) for k in counted)
    (line,) = [r.getMessage() for r in caplog.records]
    tensors = 100 if kind == "old, without counters" else 120
    assert f"backbone {NAME}: {tensors} tensors, float{16 if kind == 'half' else 32}" in line
    assert "unused: 2 of the classifier" in line or kind == "model of a detector"
    assert str(tmp_path / "weights.pth") in line


def test_weights_of_another_depth_or_network_are_refused(right: State, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model(DEEPER).state_dict(), file)
    shallow, deep = (Backbone(n, (0.5,) * 3, (0.5,) * 3, True) for n in (NAME, DEEPER))
    before = {k: v.clone() for k, v in shallow.net.state_dict().items()}
    with pytest.raises(OV2VSSError, match=r"no place for 96 tensors, for example layer1\.2"):
        load_backbone_weights(shallow, NAME, str(file))
    save_file(right, file)
    with pytest.raises(OV2VSSError, match=r"80 of 180 tensors are missing, for example layer1\.2"):
        load_backbone_weights(deep, DEEPER, str(file))
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), file)
    with pytest.raises(OV2VSSError, match=r"96 of 100 tensors are missing.*the file begins with blocks"):
        load_backbone_weights(shallow, NAME, str(file))
    save_file(right | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, file)
    with pytest.raises(OV2VSSError, match="conv1.weight is 64x4x7x7 and must be 64x3x7x7"):
        load_backbone_weights(shallow, NAME, str(file))
    assert all(torch.equal(v, before[k]) for k, v in shallow.net.state_dict().items())


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(__file__).parent / "harmful-was-run",))


@pytest.mark.parametrize("end", [".safetensors", ".pth"])
def test_files_that_are_cut_short_or_hold_no_weights(end: str, right: State, tmp_path: Path) -> None:
    backbone, file = Backbone(NAME, (0.5,) * 3, (0.5,) * 3, True), tmp_path / f"weights{end}"
    (save_file if end == ".safetensors" else torch.save)(right, file)
    whole = file.read_bytes()
    contents: dict[bytes, str] = {
        whole[: len(whole) // 2]: "it is not whole",
        whole[:5]: "cannot be read as weights",
        b"": "it is empty",
        b"not weights at all\n": "neither a safetensors file nor a state dict",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n": "a Git LFS pointer",
        b"<!DOCTYPE html><html>": "a web page",
    }
    for content, message in contents.items():
        file.write_bytes(content)
        with pytest.raises(OV2VSSError, match=message) as caught:
            load_backbone_weights(backbone, NAME, str(file))
        assert "\n" not in str(caught.value)
    torch.save({"model": right, "hook": Harmful()}, file)
    with pytest.raises(OV2VSSError, match="objects beside tensors, which are not run"):
        load_backbone_weights(backbone, NAME, str(file))
    assert not (Path(__file__).parent / "harmful-was-run").exists()
    torch.save({"epoch": 3}, file)
    with pytest.raises(OV2VSSError, match=r"holds no state dict \(found: epoch\)"):
        load_backbone_weights(backbone, NAME, str(file))


def _huggingface(folder: Path, activation: str = "gelu") -> torch.nn.Module:
    """A CLIPModel of transformers with the sizes of the small CLIP, saved as transformers saves it."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "hidden_act": activation}
    text = {"vocab_size": 49408, "max_position_embeddings": 77, "num_hidden_layers": 2, "eos_token_id": 49407}
    vision = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 3}
    config = CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=64)
    torch.manual_seed(3)
    model = shuffled(CLIPModel(config)).eval()
    model.save_pretrained(folder)
    return model


def test_clip_in_hugging_faces_layout_gives_the_features_of_transformers(
    small_clip: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = _huggingface(tmp_path / "hub")
    torch.save({k: v.half() for k, v in theirs.state_dict().items()}, tmp_path / "pytorch_model.bin")
    image, tokens = torch.rand(2, 3, 32, 32), open_clip.tokenize(["a road", "an old stone bridge over a river"])
    with torch.no_grad():
        wanted = [theirs.visual_projection(theirs.vision_model(image).pooler_output)]
        wanted.append(theirs.text_projection(theirs.text_model(tokens).pooler_output))
    for source in ("hub", "hub/model.safetensors", "pytorch_model.bin"):
        with caplog.at_level(logging.INFO):
            ours = load_clip(small_clip, "", ClipSource(str(tmp_path / source)))
        assert "Hugging Face's layout" in caplog.text
        bound = 2e-6 if "hub" in source else 2e-2
        with torch.no_grad():
            for got, want in zip((ours.encode_image(image), ours.encode_text(tokens)), wanted, strict=True):
                assert (got - want).norm() <= bound * want.norm()


def test_hugging_faces_configuration_says_the_activation(small_clip: str, tmp_path: Path) -> None:
    _huggingface(tmp_path / "hub", "quick_gelu")
    with pytest.raises(OV2VSSError, match="says hidden_act 'quick_gelu', but CLIP small-clip '' has 'gelu'"):
        load_clip(small_clip, "", ClipSource(str(tmp_path / "hub")))


def test_clip_of_openai_of_open_clip_and_of_training_programs_is_the_same(small_clip: str, tmp_path: Path) -> None:
    state = shuffled(build_clip(small_clip, "")).state_dict()
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(9)}
    text = ("positional_embedding", "text_projection", "token_embedding", "transformer", "ln_final")
    files: dict[str, object] = {
        "open_clip": state,
        "openai": state | numbers,
        "text tower apart": {f"text.{k}" if k.startswith(text) else k: v for k, v in state.items()},
        "ddp": {"epoch": 1, "state_dict": _prefixed(state, "module.")},
        "scale as a vector": state | {"logit_scale": state["logit_scale"].reshape(1)},
        "half": {k: v.half() for k, v in state.items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / "weights.pt")
        loaded = load_clip(small_clip, "", ClipSource(str(tmp_path / "weights.pt"))).state_dict()
        for key, value in state.items():
            assert torch.equal(loaded[key], value.half().float() if name == "half" else value), (name, key)


def test_clip_files_that_do_not_fit(small_clip: str, right: State, tmp_path: Path) -> None:
    state = build_clip(small_clip, "").state_dict()
    file, source = tmp_path / "weights.safetensors", ClipSource(str(tmp_path / "weights.safetensors"))
    cases: list[tuple[State, str]] = [
        ({k: v for k, v in state.items() if ".resblocks.2." not in k}, r"12 of 74 tensors are missing"),
        (state | {"visual.transformer.resblocks.3.ln_1.bias": torch.ones(32)}, r"no place for 1 tensors, .*blocks\.3"),
        (state | {"visual.positional_embedding": torch.zeros(50, 32)}, r"positional_embedding is 50x32 and .* 17x32"),
        (right, r"74 of 74 tensors are missing"),
    ]
    for tensors, message in cases:
        save_file(tensors, file)
        with pytest.raises(OV2VSSError, match=message):
            load_clip(small_clip, "", source)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OV2VSSError, match="it is not whole: .* bytes"):
        load_clip(small_clip, "", source)


def test_the_cached_repositories_of_openai_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ov2vss import clip

    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    found = {("openai/clip-vit-base-patch16", "model.safetensors"): str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(clip, "try_to_load_from_cache", lambda repo, name: found.get((repo, name)))
    assert clip.find_clip_weights("ViT-B-16", "openai", ClipSource()) == tmp_path / "model.safetensors"
    with pytest.raises(OV2VSSError, match="no weights for CLIP ViT-B-32"):
        clip.find_clip_weights("ViT-B-32", "openai", ClipSource())


def test_a_hub_that_cannot_be_reached_is_said_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    from ov2vss import clip

    def unreachable(*_args: object, **_kwargs: object) -> None:
        try:
            raise ConnectionError("[Errno -3] Temporary failure in name resolution")
        except ConnectionError as error:
            raise RuntimeError("Max retries exceeded with url: /api/models/x") from error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(clip, "download_pretrained", unreachable)
    with pytest.raises(OV2VSSError, match=r"timm's weights of 'pvt_v2_b2' could not be fetched: the hub cannot be re"):
        load_backbone_weights(Backbone("test_resnet", (0,) * 3, (1,) * 3, True), "pvt_v2_b2", "timm", True)
    with pytest.raises(OV2VSSError, match=r"CLIP weights ViT-B-32 'openai'.* could not be fetched: the hub cannot be"):
        load_clip("ViT-B-32", "openai", ClipSource(download=True))


def test_the_names_in_a_message_are_those_of_json(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"0" * 12)
    with pytest.raises(OV2VSSError, match=rf"{8 + len(header) + 12:,} of {8 + len(header) + 16:,} bytes"):
        load_backbone_weights(Backbone("test_resnet", (0,) * 3, (1,) * 3, True), "test_resnet", str(file))
