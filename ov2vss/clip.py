"""CLIP through open_clip: where its weights come from and how they are read.

CLIP is frozen and no part of a checkpoint. A model's configuration names open_clip's architecture and tag
(``clip_model``, ``clip_pretrained``); the weights come from a file, from the local hub cache, or, only if asked for,
from the hub. The tag also says what a weights file does not: OpenAI's weights were trained with QuickGELU.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.convert import convert_state_dict
from open_clip.pretrained import download_pretrained
from torch import Tensor, nn

from ov2vss.clip_layouts import to_open_clip
from ov2vss.clip_source import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss.weights_file import Weights, check_weights_file, describe, fetching, fit, read_weights

log = logging.getLogger("ov2vss")
RANDOM = "random"
"""Instead of a weights file: random weights, always the same ones (for tests and for measuring speed)."""


FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""Hugging Face's names of weights files in a repository of ``transformers``."""
OPENAI_REPOSITORIES = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336": "openai/clip-vit-large-patch14-336",
}
"""Hub repositories with OpenAI's weights in the layout of ``transformers``: taken where they are cached already."""


@dataclass(frozen=True)
class ClipSettings:
    """What belongs to a tag beside its weights: activation, and normalisation of RGB in [0, 1]."""

    quick_gelu: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def clip_settings(model: str, tag: str) -> ClipSettings:
    """Settings of open_clip's ``model`` and ``tag``; an empty tag takes the architecture's own."""
    architecture = open_clip.get_model_config(model)
    if architecture is None:
        near = ", ".join(m for m in open_clip.list_models() if m.startswith(model.split("-")[0]))[:120]
        raise OV2VSSError(f"open_clip has no model {model!r}", f"set model.clip_model to one of its names: {near} ...")
    known = open_clip.list_pretrained_tags_by_model(model)
    if tag and tag not in known:
        names = ", ".join(known) or "none"
        raise OV2VSSError(
            f"open_clip has no weights {tag!r} for {model!r}",
            f"set model.clip_pretrained to one of: {names}; or leave it empty and name a file with --clip-weights",
        )
    found: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    return ClipSettings(
        quick_gelu=bool(found.get("quick_gelu") or architecture.get("quick_gelu")),
        mean=tuple(found.get("mean") or OPENAI_DATASET_MEAN),
        std=tuple(found.get("std") or OPENAI_DATASET_STD),
    )


def build_clip(model: str, tag: str) -> nn.Module:
    """open_clip's network with the tag's activation and random weights, frozen; always the same random weights."""
    settings = clip_settings(model, tag)
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.create_model(model, pretrained=None, force_quick_gelu=settings.quick_gelu)
    return network.eval().requires_grad_(False)


def load_clip(model: str, tag: str, source: ClipSource) -> nn.Module:
    """The network with its weights, frozen.

    Raises:
        OV2VSSError: no weights at hand, or a file that cannot be read or does not fit.
    """
    path = find_clip_weights(model, tag, source)
    network = build_clip(model, tag)
    if path is not None:
        _fill(network, path, model, tag)
    return network


def _fill(network: nn.Module, path: Path, model: str, tag: str) -> None:
    """Every tensor of the network from a file, whatever library wrote it."""
    if check_weights_file(path, "CLIP weights", "--clip-weights") == "torchscript":
        weights = Weights(path, _published_program(path, model, tag))
    else:
        weights = read_weights(path, "CLIP weights", "--clip-weights")
    tensors, layout = to_open_clip(convert_state_dict(network, weights.tensors), network)
    if layout == "Hugging Face":
        _check_activation(path, model, tag)
    fitted = fit(Weights(path, tensors), network.state_dict(), f"open_clip's {model!r}")
    if fitted.unused:
        raise OV2VSSError(
            f"weights {path} do not fit open_clip's {model!r}: it has no place for {len(fitted.unused)} tensors, for "
            f"example {fitted.unused[0]}",
            "give weights of this very network",
        )
    network.load_state_dict(fitted.tensors, strict=True)
    _say(f"CLIP {model} {tag!r}: {describe(tensors)}, {layout}'s layout, from {path}")


@lru_cache(maxsize=64)
def _say(line: str) -> None:
    """Once a process: image and text tower are loaded one after the other from the same file."""
    log.info("%s", line)


def find_clip_weights(model: str, tag: str, source: ClipSource) -> Path | None:
    """The file that the weights will be read from, checked by its first bytes; None for random weights.

    Raises:
        OV2VSSError: no weights at hand, or a file that is missing, truncated or no file of weights.
    """
    if source.weights == RANDOM:
        return None
    path = _in_folder(Path(source.weights)) if source.weights else _tag_file(model, tag, source.download)
    check_weights_file(path, "CLIP weights", "--clip-weights" if source.weights else "")
    return path


def _in_folder(path: Path) -> Path:
    """A file as it is; of a folder of the hub, the file with the weights."""
    if not path.is_dir():
        return path
    for name in (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, *FOLDER_FILES):
        if (path / name).is_file():
            return path / name
    raise OV2VSSError(f"the folder {path} holds none of {', '.join(FOLDER_FILES)}", "name the file of weights itself")


def _check_activation(path: Path, model: str, tag: str) -> None:
    """Hugging Face's configuration beside the weights says which activation they were trained with."""
    try:
        config = json.loads((path.parent / "config.json").read_text())
        stored = {config[part]["hidden_act"] for part in ("vision_config", "text_config")}
    except (OSError, ValueError, KeyError, TypeError):
        return
    quick = clip_settings(model, tag).quick_gelu
    if len(stored) == 1 and (stored == {"quick_gelu"}) != quick:
        ours = "quick_gelu" if quick else "gelu"
        raise OV2VSSError(
            f"{path.parent / 'config.json'} says hidden_act {stored.pop()!r}, but CLIP {model} {tag!r} has {ours!r}",
            "set model.clip_pretrained to the tag of these weights (openai for OpenAI's)",
        )


def _tag_file(model: str, tag: str, download: bool) -> Path:
    """Weights file of a tag in the local caches; fetched if that was asked for."""
    clip_settings(model, tag)
    found = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    names: list[tuple[str, str]] = []
    if hub := found.get("hf_hub"):
        repository, _, file = hub.rpartition("/")
        files = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        if file.endswith((".bin", ".pth")):
            files.insert(0, file.rsplit(".", 1)[0] + ".safetensors")
        names = [(repository, f) for f in files]
    if tag == "openai" and model in OPENAI_REPOSITORIES:
        names += [(OPENAI_REPOSITORIES[model], f) for f in FOLDER_FILES]
    for repository, file in names:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if url := found.get("url"):
        cached_file = Path("~/.cache/clip").expanduser() / url.rsplit("/", 1)[-1]
        if cached_file.is_file():
            return cached_file
    where = f" (hub repository {names[0][0]})" if names else ""
    if download and found:
        with fetching(f"CLIP weights {model} {tag!r}{where}", "name a file with --clip-weights FILE"):
            return Path(download_pretrained(found))
    raise OV2VSSError(
        f"there are no weights for CLIP {model} {tag!r} on this machine{where}",
        "name a file with --clip-weights FILE, put them into the local hub cache, or allow --download",
    )


def _published_program(path: Path, model: str, tag: str) -> dict[str, Tensor]:
    """OpenAI's own files are programs, not tensors: only the very file that open_clip knows by its hash is opened."""
    url = open_clip.get_pretrained_cfg(model, tag).get("url", "") if tag else ""
    published = url.split("/")[-2] if url.count("/") > 2 else ""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not published or digest != published:
        raise OV2VSSError(
            f"{path} is a TorchScript program and not the file that OpenAI published for {model} (sha256 differs)",
            "give the weights as safetensors or as a torch state dict",
        )
    return torch.jit.load(str(path), map_location="cpu").state_dict()


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger that weights are random, also where that is meant."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
