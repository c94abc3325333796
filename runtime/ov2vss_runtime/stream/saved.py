"""A stream's memory as bytes: a safetensors file of arrays, and what is no array as JSON in its header."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ov2vss_runtime.errors import OV2VSSError

KEY = "ov2vss_stream"
FORMAT = 1


def pack(facts: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """``arrays`` by name and ``facts`` (anything that JSON holds) as bytes."""
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(tensors, {KEY: json.dumps({"format": FORMAT} | facts)})


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Inverse of :func:`pack`.

    Raises:
        OV2VSSError: these are not the bytes of a saved stream.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
        if facts["format"] != FORMAT:
            raise ValueError
        return facts, load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError):
        raise OV2VSSError("this is not a saved stream", "give the bytes that save() returned") from None


def part(arrays: dict[str, npt.NDArray[Any]], name: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with ``name/``, without it."""
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}/")}


def prefixed(arrays: dict[str, npt.NDArray[Any]], name: str) -> dict[str, npt.NDArray[Any]]:
    """Inverse of :func:`part`."""
    return {f"{name}/{key}": array for key, array in arrays.items()}
