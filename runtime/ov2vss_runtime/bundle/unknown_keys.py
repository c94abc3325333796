"""Keys that stand in a JSON file and mean nothing to this release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unknown_keys(raw: Mapping[str, Any], known: Mapping[str, Any], path: str = "") -> list[str]:
    """Keys of a manifest that this release does not know: they are in the file and not in what was read of it."""
    found = []
    for key, value in raw.items():
        if key not in known:
            found.append(f"{path}{key}")
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            found += unknown_keys(value, known[key], f"{path}{key}.")
        elif isinstance(value, list) and isinstance(known[key], list):
            for number, (one, other) in enumerate(zip(value, known[key], strict=False)):
                if isinstance(one, Mapping) and isinstance(other, Mapping):
                    found += unknown_keys(one, other, f"{path}{key}.{number}.")
    return found
