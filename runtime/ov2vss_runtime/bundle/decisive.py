"""What a manifest says that decides a label, kept in the parity file, so that an edited manifest is seen.

The files of a bundle are held by their hashes; the manifest itself is plain text that anybody can edit, and swapped
class names or another gap change every result in silence. The export writes a copy of all that decides a label into
``parity.safetensors``, whose hash stands in the manifest, and ``ov2vss-export --verify-only`` compares. It finds slips,
not forgers: who rewrites both files passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from safetensors import SafetensorError, safe_open

from ov2vss_runtime.bundle.bundle import MANIFEST, Bundle, Manifest, file_sha256
from ov2vss_runtime.errors import BundleError

KEY = "decisive"
"""Name of the copy in the metadata of the parity file."""
UNDECIDING = ("format_version", "name", "created", "producer", "vocabulary_cache", "parity")
"""Top fields of a manifest that no label depends on, or whose files have hashes of their own."""
OF_SOURCE = ("trained_classes", "unseen", "license")
"""What is kept of ``source``: a constant for seen classes goes by it, and so does the right to use the weights."""


def decisive(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a manifest (as JSON holds it) that decides labels."""
    kept = {k: v for k, v in manifest.items() if k not in UNDECIDING}
    kept["source"] = {k: v for k, v in kept.get("source", {}).items() if k in OF_SOURCE}
    kept["vocabulary"] = {k: v for k, v in kept.get("vocabulary", {}).items() if k not in ("added", "key")}
    # A variant that was made on the user's machine is compared with the one that it was made of.
    kept["variants"] = {k: _variant(v) for k, v in kept.get("variants", {}).items() if not v.get("made_from")}
    return kept


def _variant(variant: Mapping[str, Any]) -> dict[str, Any]:
    """Without the hashes of the graphs: what those compute is compared by the other gates."""
    graphs = {name: {k: v for k, v in info.items() if k != "sha256"} for name, info in variant["graphs"].items()}
    return {k: v for k, v in variant.items() if k != "verified"} | {"graphs": graphs}


def sealed(manifest: Manifest) -> dict[str, str]:
    """Metadata of the parity file of a new bundle."""
    return {KEY: json.dumps(decisive(manifest.model_dump(mode="json")), sort_keys=True)}


def edits(bundle: Bundle) -> list[str] | None:
    """What decides a label and is not as it was exported, as ``gap is 1, was 3``; None for bundles without a copy."""
    stored = _stored(bundle)
    if stored is None:
        return None
    raw = json.loads((bundle.folder / MANIFEST).read_bytes())
    # As it is understood, and what is not understood too: a missing field has its default.
    was, now = dict(_leaves(stored)), dict(_leaves(decisive(raw)))
    now |= dict(_leaves(decisive(bundle.manifest.model_dump(mode="json"))))
    # A field that a later release added may stand there with its default.
    without = Manifest.model_validate(_only(raw, decisive(raw), stored)).model_dump(mode="json")
    defaults = dict(_leaves(decisive(without)))
    found = [f"{k} is {_short(now.get(k))}, was {_short(v)}" for k, v in was.items() if now.get(k) != v]
    found += [f"{k} is new" for k, v in now.items() if k not in was and (k not in defaults or defaults[k] != v)]
    license_info = bundle.manifest.source.get("license")
    if isinstance(license_info, dict):
        path = bundle.folder / str(license_info.get("file"))
        if not path.is_file() or file_sha256(path) != license_info.get("sha256"):
            found.append(f"the licence {path.name} is missing or altered")
    return found


def _stored(bundle: Bundle) -> dict[str, Any] | None:
    path = bundle.folder / bundle.manifest.parity.file
    try:
        with safe_open(path, "np") as tensors:
            text = (tensors.metadata() or {}).get(KEY)
        return json.loads(text) if text is not None else None
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({type(error).__name__})", "export the bundle again") from None


def _leaves(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _only(raw: Mapping[str, Any], covered: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` without the covered fields that ``stored`` does not have."""
    result = {}
    for key, value in raw.items():
        if key in covered and key not in stored:
            continue
        inside = isinstance(value, Mapping) and isinstance(covered.get(key), Mapping)
        result[key] = _only(value, covered[key], stored[key]) if inside and stored.get(key) else value
    return result


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
