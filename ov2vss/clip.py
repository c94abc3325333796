"""CLIP through open_clip: where its weights come from and how they are read.

CLIP is frozen and no part of a checkpoint. A model's configuration names open_clip's architecture and tag
(``clip_model``, ``clip_pretrained``); the weights come from a file, from the local hub cache, or, only if asked for,
from the hub. The tag also says what a weights file does not: OpenAI's weights were trained with QuickGELU.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import download_pretrained
from torch import nn

from ov2vss.errors import OV2VSSError

RANDOM = "random"
"""Instead of a weights file: random weights, always the same ones (for tests and for measuring speed)."""


@dataclass(frozen=True)
class ClipSource:
    """Where weights come from.

    Attributes:
        weights: a file (safetensors, or a state dict of torch), ``random``, or empty for the local hub cache.
        download: allow open_clip to fetch the tag's weights.
    """

    weights: str = ""
    download: bool = False


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
    network = build_clip(model, tag)
    if source.weights == RANDOM:
        return network
    path = Path(source.weights) if source.weights else _tag_file(model, tag, source.download)
    if not path.is_file():
        raise OV2VSSError(f"CLIP weights {path} do not exist", "check --clip-weights")
    try:
        if _is_torchscript(path):
            _load_torchscript(network, path, model, tag)
        else:
            with _quiet():
                open_clip.load_checkpoint(network, str(path), strict=True, weights_only=True)
    except OV2VSSError:
        raise
    except Exception as error:
        line = next((x.strip() for x in str(error).splitlines()[1:] if x.strip()), str(error).split("\n")[0])
        raise OV2VSSError(
            f"{path} cannot be read as weights of open_clip's {model!r} ({type(error).__name__}: {line[:120]})",
            "give a safetensors file or a torch state dict of this architecture",
        ) from None
    return network.eval().requires_grad_(False)


def _tag_file(model: str, tag: str, download: bool) -> Path:
    """Weights file of a tag in the local caches; fetched if that was asked for."""
    found = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    names: list[tuple[str, str]] = []
    if hub := found.get("hf_hub"):
        repository, _, file = hub.rpartition("/")
        files = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        if file.endswith((".bin", ".pth")):
            files.insert(0, file.rsplit(".", 1)[0] + ".safetensors")
        names = [(repository, f) for f in files]
    for repository, file in names:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if url := found.get("url"):
        cached_file = Path("~/.cache/clip").expanduser() / url.rsplit("/", 1)[-1]
        if cached_file.is_file():
            return cached_file
    if download and found:
        try:
            return Path(download_pretrained(found))
        except Exception as error:
            raise OV2VSSError(
                f"CLIP weights {model} {tag!r} could not be fetched ({' '.join(str(error).split())[:160]})",
                "check the connection, or name a file with --clip-weights FILE",
            ) from None
    where = f" (hub repository {names[0][0]})" if names else ""
    raise OV2VSSError(
        f"there are no weights for CLIP {model} {tag!r} on this machine{where}",
        "name a file with --clip-weights FILE, put them into the local hub cache, or allow --download",
    )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_torchscript(network: nn.Module, path: Path, model: str, tag: str) -> None:
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
    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    for name in ("input_resolution", "context_length", "vocab_size"):
        state.pop(name, None)
    network.load_state_dict(state, strict=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger that weights are random, also where that is meant."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
