"""Files with weights: read without running anything in them, unwrapped, and fitted to a network tensor by tensor.

Every file of weights comes through here, the backbone's and CLIP's. A file is what its first bytes say, whatever its
name: safetensors, or a state dict of torch. Pickles are read with ``weights_only``: a file that wants to do more than
hold tensors is refused.
"""

from __future__ import annotations

import json
import logging
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ov2vss.errors import OV2VSSError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ov2vss")

Kind = Literal["safetensors", "torch", "torchscript"]
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""Keys under which training programs store the weights beside other things, the surest first."""
PREFIXES = ("module", "model", "_orig_mod", "backbone", "net", "network")
"""Names that a wrapper puts before the names of a network's tensors: DDP, Lightning, torch.compile, detectors."""
MAX_HEADER = 100_000_000
"""Bytes of the header of a safetensors file, as the format allows them."""
PICKLE = b"\x80"
"""First byte of a pickle (torch before 1.6 wrote them without a zip archive)."""
UNREACHABLE = ("Connect", "Timeout", "URLError", "OfflineMode", "gaierror", "ProxyError", "LocalEntryNotFound")
"""Parts of the names of exceptions that a missing connection ends in."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and how they were found in their file."""

    path: Path
    tensors: dict[str, Tensor]
    wrapper: str = ""
    """What was taken away around the names, such as ``state_dict / module.``; empty for a bare state dict."""


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file a network takes.

    Attributes:
        tensors: under the network's own names; complete, and of the right shapes.
        unused: names in the file that the network has no place for.
    """

    tensors: dict[str, Tensor]
    unused: list[str]


def check_weights_file(path: str | Path, what: str = "weights", option: str = "") -> Kind:
    """What kind of file this is; an error for a missing, truncated or foreign one. Reads a few bytes, needs no torch.

    Args:
        path: the file.
        what: what the weights are of, for the message.
        option: the option that named the file, for the message.
    """
    path = Path(path)
    cure = f"check {option}" if option else "check the path"
    if path.is_dir():
        raise OV2VSSError(f"{what} {path} is a folder, not a file", cure)
    if not path.is_file():
        raise OV2VSSError(f"{what} {path} do not exist", cure)
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(16)
        if head.startswith(b"PK\x03\x04"):
            return _zip_kind(path)
        if head[8:9] == b"{":
            (length,) = struct.unpack("<Q", head[:8])
            if 2 <= length <= MAX_HEADER:
                stream.seek(8)
                return _safetensors_kind(path, stream.read(length), length, size)
    if head.startswith(PICKLE):
        return "torch"
    seen = "is empty" if not size else "is neither a safetensors file nor a state dict of torch"
    if head.startswith((b"version ht", b"<!DOCTYPE", b"<html")):
        seen = "is a Git LFS pointer" if head.startswith(b"version") else "is a web page"
    raise OV2VSSError(
        f"{path} cannot be read as weights (it {seen})", "give a safetensors file or a torch state dict, whole"
    )


def _zip_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        raise _truncated(path, "the end of its archive is missing") from None
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    raise OV2VSSError(
        f"{path} cannot be read as weights (it is an archive without tensors of torch)",
        "unpack it, and give the safetensors file or the torch state dict inside",
    )


def _safetensors_kind(path: Path, header: bytes, length: int, size: int) -> Kind:
    try:
        entries = json.loads(header)
        end = max((e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise _truncated(path, "its header is damaged") from None
    if 8 + length + end != size:
        raise _truncated(path, f"{size:,} of {8 + length + end:,} bytes")
    return "safetensors"


def _truncated(path: Path, how: str) -> OV2VSSError:
    return OV2VSSError(f"{path} cannot be read as weights (it is not whole: {how})", "copy or download it again")


def read_weights(path: str | Path, what: str = "weights", option: str = "") -> Weights:
    """The tensors of a file, out of their wrappers; names are those of the file but for a prefix that all share."""
    kind = check_weights_file(path, what, option)
    path = Path(path)
    if kind == "torchscript":
        raise OV2VSSError(
            f"{path} is a TorchScript program, not a file of weights",
            "give the weights as safetensors or as a torch state dict",
        )
    tensors, wrapper = _unwrap(path, _load(path, kind))
    return Weights(path, tensors, wrapper)


def _load(path: Path, kind: Kind) -> Any:
    import torch
    from safetensors.torch import load_file

    try:
        if kind == "safetensors":
            return load_file(path)
        with path.open("rb") as stream:  # by its bytes: torch reads a path by its ending
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        text = " ".join(str(error).split())
        reason = "it holds objects beside tensors, which are not run" if "weights_only" in text.lower() else text[:120]
        raise OV2VSSError(
            f"{path} cannot be read as weights ({reason})", "give a safetensors file or a torch state dict"
        ) from None


def _unwrap(path: Path, stored: Any) -> tuple[dict[str, Tensor], str]:
    """Tensors of the innermost state dict, and the way to it."""
    from torch import Tensor

    way = []
    while isinstance(stored, Mapping):
        inner = next((k for k in WRAPPERS if isinstance(stored.get(k), Mapping)), None)
        tensors = {str(k): v for k, v in stored.items() if isinstance(v, Tensor)}
        if inner is None:
            if not tensors:
                break
            prefix = _shared_prefix(tensors)
            if prefix:
                way.append(prefix)
            return {k.removeprefix(prefix): v for k, v in tensors.items()}, " / ".join(way)
        way.append(inner)
        stored = stored[inner]
    names = ", ".join(map(str, list(stored)[:5])) if isinstance(stored, Mapping) else type(stored).__name__
    raise OV2VSSError(
        f"{path} holds no state dict (found: {names or 'nothing'})",
        f"save the weights alone, or under one of the keys {', '.join(WRAPPERS)}",
    )


def _shared_prefix(names: Mapping[str, object]) -> str:
    """The wrapper's names that stand before all names, as ``module.model.``; empty without any."""
    rest, prefix = list(names), ""
    while True:
        first = rest[0].split(".", 1)[0]
        if first not in PREFIXES or any(not n.startswith(f"{first}.") for n in rest):
            return prefix
        prefix += f"{first}."
        rest = [n.removeprefix(f"{first}.") for n in rest]


def fit(weights: Weights, wanted: Mapping[str, Tensor], network: str, optional: tuple[str, ...] = ()) -> Fit:
    """The file's tensors under a network's names: every one of them, with its shape.

    Args:
        weights: what was read.
        wanted: the network's own ``state_dict``.
        network: its name, for messages.
        optional: last parts of names that a file may lack (their values then stay as they are).

    Raises:
        OV2VSSError: a tensor is missing or has another shape; the message counts and names them.
    """
    needed = [k for k in wanted if k.rsplit(".", 1)[-1] not in optional]
    missing = [k for k in needed if k not in weights.tensors]
    if missing:
        inside = ", ".join(list(weights.tensors)[:3])
        detail = f"for example {missing[0]}" + (
            f"; the file begins with {inside}" if 2 * len(missing) > len(needed) else ""
        )
        raise _does_not_fit(weights, network, f"{len(missing)} of {len(needed)} tensors are missing, {detail}")
    used = {k: weights.tensors[k] for k in wanted if k in weights.tensors}
    for name, tensor in used.items():
        if tensor.shape != wanted[name].shape:
            a, b = ("x".join(map(str, t.shape)) or "one number" for t in (tensor, wanted[name]))
            raise _does_not_fit(weights, network, f"{name} is {a} and must be {b}")
    return Fit(used, [k for k in weights.tensors if k not in wanted])


def _does_not_fit(weights: Weights, network: str, why: str) -> OV2VSSError:
    return OV2VSSError(f"weights {weights.path} do not fit {network}: {why}", "give weights of this very network")


@contextmanager
def fetching(what: str, instead: str) -> Iterator[None]:
    """Fetching from the hub: a hub that cannot be reached is said as that, in one line.

    Args:
        what: is fetched.
        instead: what to do without a connection, as an imperative.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # libraries log every attempt
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
            chain.append(cause)
        names = " ".join(type(e).__name__ for e in chain)
        if any(word in names for word in UNREACHABLE):
            raise OV2VSSError(f"{what} could not be fetched: the hub cannot be reached", instead) from None
        line = " ".join(str(error).split())[:160]
        raise OV2VSSError(f"{what} could not be fetched ({type(error).__name__}: {line})", instead) from None
    finally:
        logging.disable(before)


def describe(tensors: Mapping[str, Tensor]) -> str:
    """Number and kinds of tensors: ``302 tensors, float16``."""
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()})
    return f"{len(tensors)} tensors, {' and '.join(kinds) or 'no numbers'}"
