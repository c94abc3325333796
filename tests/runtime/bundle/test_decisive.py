"""A manifest that was edited after the export."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ov2vss_runtime.bundle.bundle import MANIFEST, Bundle, Manifest, file_sha256
from ov2vss_runtime.bundle.decisive import edits, sealed
from ov2vss_runtime.bundle.gates import gate_manifest
from tests.hand_made import HandMade


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hand-made bundle with a copy of its manifest in the parity file, as the export leaves it."""
    folder = HandMade(state=True).write(tmp_path / "bundle")
    (folder / "LICENSE-WEIGHTS").write_text("for research alone\n")
    _edit(folder, lambda d: d["source"].update(trained_classes=["road"], license=_license(folder)))
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    save_file({"nothing": np.zeros(1, np.float32)}, folder / "parity.safetensors", sealed(manifest))
    _edit(folder, lambda d: d["parity"].update(sha256=file_sha256(folder / "parity.safetensors")))
    return folder


def _license(folder: Path) -> dict[str, str]:
    return {"file": "LICENSE-WEIGHTS", "sha256": file_sha256(folder / "LICENSE-WEIGHTS"), "title": "for research alone"}


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    change(data)
    (folder / MANIFEST).write_text(json.dumps(data))


def test_an_untouched_bundle_has_no_edits(folder: Path) -> None:
    assert edits(Bundle.open(folder)) == []
    (gate,) = gate_manifest(Bundle.open(folder))
    assert (gate.name, gate.passed) == ("manifest as exported", True)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "names swapped": (lambda d: d["vocabulary"]["entries"].reverse(), "vocabulary.entries is "),
    "a template": (lambda d: d["vocabulary"].update(templates=["no {}"]), "vocabulary.templates is "),
    "synonyms": (lambda d: d["vocabulary"].update(synonyms="max"), 'vocabulary.synonyms is "max", was "average"'),
    "gap": (lambda d: d.update(gap=3), "gap is 3, was 1"),
    "references": (lambda d: d.update(references=2), "references is 2, was 1"),
    "warm-up": (lambda d: d["state"].update(warmup=5), "state.warmup is 5, was 0"),
    "colour": (lambda d: d["preprocess"].update(mean=[0.1]), "preprocess.mean is [0.1], was [0.5]"),
    "size": (lambda d: d["preprocess"].update(size=[96, 64]), "preprocess.size is [96, 64], was [64, 96]"),
    "temperature": (lambda d: d.update(temperature=5.0), "temperature is 5.0, was null"),
    "a constant for seen classes": (lambda d: d.update(class_offset=1.0), "class_offset is 1.0"),
    "seen classes": (lambda d: d["source"].update(trained_classes=["sky"]), "source.trained_classes is "),
    "unknown": (lambda d: d.update(unknown_below=0.5), "unknown_below is 0.5"),
    "cuts": (lambda d: d["cut"].update(threshold=0.9), "cut.threshold is 0.9, was 0.5"),
    "time": (lambda d: d.update(temporal={"share": 0.9}), "temporal"),
    "weights called int8": (
        lambda d: d["variants"]["fp32"]["graphs"]["decoder"].update(weights="int8"),
        'variants.fp32.graphs.decoder.weights is "int8", was "fp32"',
    ),
    "a new field": (lambda d: d.update(gapp=3), "gapp is new"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_that_could_change_a_label_is_named(edit: str, folder: Path) -> None:
    change, message = EDITS[edit]
    _edit(folder, change)
    found = edits(Bundle.open(folder))
    assert found is not None
    assert any(message in line for line in found), found
    (gate,) = gate_manifest(Bundle.open(folder))
    assert not gate.passed
    assert gate.value == len(found)


def test_what_decides_nothing_may_change(folder: Path) -> None:
    """Another name, added words, and fields that a later release writes with their defaults."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    words = manifest.vocabulary.model_copy(update={"added": {"pets": [["dog"]]}})
    (folder / MANIFEST).write_text(manifest.model_copy(update={"name": "mine", "vocabulary": words}).model_dump_json())
    assert edits(Bundle.open(folder)) == []
    # As if it had been exported before these fields were there.
    old = json.loads(sealed(manifest)["decisive"])
    for field in ("temporal", "store", "class_offset"):
        del old[field]
    del old["vocabulary"]["synonyms"]
    save_file({"nothing": np.zeros(1, np.float32)}, folder / "parity.safetensors", {"decisive": json.dumps(old)})
    _edit(folder, lambda d: d["parity"].update(sha256=file_sha256(folder / "parity.safetensors")))
    assert edits(Bundle.open(folder)) == []
    _edit(folder, lambda d: d["vocabulary"].update(synonyms="max"))
    assert edits(Bundle.open(folder)) == ["vocabulary.synonyms is new"]


def test_the_licence_belongs_to_it(folder: Path) -> None:
    (folder / "LICENSE-WEIGHTS").write_text("free for all\n")
    assert edits(Bundle.open(folder)) == ["the licence LICENSE-WEIGHTS is missing or altered"]
    (folder / "LICENSE-WEIGHTS").unlink()
    assert edits(Bundle.open(folder)) == ["the licence LICENSE-WEIGHTS is missing or altered"]


def test_bundles_of_earlier_releases_are_said_to_be_not_covered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = Bundle.open(HandMade().write(tmp_path / "old"))
    assert edits(bundle) is None
    with caplog.at_level(logging.WARNING):
        assert gate_manifest(bundle) == []
    assert "nothing holds its manifest" in caplog.text


def test_unknown_keys_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Bundle.open(folder)
    assert not caplog.records
    _edit(folder, lambda d: (d.update(gapp=1), d["preprocess"].update(sise=2), d["source"].update(anything=1)))
    with caplog.at_level(logging.WARNING):
        Bundle.open(folder)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.endswith("keys that this release does not know are ignored: preprocess.sise, gapp")
