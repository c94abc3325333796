"""What is wrong with a setting, in the words of the setting: pydantic's findings turned into sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from ov2vss.errors import OV2VSSError

BOUNDS = {
    "greater_than": ("gt", "must be above"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be below"),
    "less_than_equal": ("le", "must be at most"),
}
KINDS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text",
    "tuple": "must be a list",
}
"""By the first part of pydantic's name of the error."""


def setting_error(error: ValidationError, remedy: str) -> OV2VSSError:
    """The first finding as an error with a remedy; the message begins with ``name=value``."""
    first = error.errors()[0]
    return OV2VSSError(_sentence(first), remedy, usage="--set" in remedy)


def _sentence(found: Mapping[str, Any]) -> str:
    kind, context, given = found["type"], found.get("ctx", {}), found.get("input")
    names = [str(p) for p in found["loc"] if not isinstance(p, int)]
    where = f"{'.'.join(names) or 'settings'}={_value(given)}"
    if kind == "value_error":
        return str(context.get("error", found["msg"]))
    if kind == "missing":
        place = [p for p in found["loc"] if isinstance(p, int)]
        return f"{'.'.join(names)} has too few values" + (f": number {place[0] + 1} is missing" if place else "")
    if kind in BOUNDS:
        key, words = BOUNDS[kind]
        return f"{where} {words} {context[key]:g}"
    if kind == "literal_error":
        return f"{where} must be one of: {context['expected'].replace(' or ', ', ')}"
    if kind == "too_long":
        return f"{'.'.join(names)} has {context['actual_length']} values and takes {context['max_length']}"
    if kind == "extra_forbidden":
        return f"{'.'.join(names)} is no setting"
    known = KINDS.get(kind.split("_")[0])
    return f"{where} {known}" if known else f"{where}: {found['msg']}"


def _value(given: object) -> str:
    if isinstance(given, Mapping):
        return "..."
    if isinstance(given, Sequence) and not isinstance(given, str):
        return ",".join(map(str, given))
    return str(given)


def unknown_setting(name: str, known: Sequence[str]) -> str:
    """What to write in the place of a name that no setting has: the nearest ones, else where all of them are listed."""
    last = name.rsplit(".", 1)[-1]
    same = [k for k in known if k.rsplit(".", 1)[-1] == last]
    near = same or get_close_matches(name, known, 3, 0.6) or [k for k in known if last and last in k][:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"write key=value with one of: {', '.join(k for k in known if '.' not in k)}, or model.<field>"
