"""The licence of weights goes with them: training from them, and into a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov2vss.errors import OV2VSSError
from ov2vss.licenses import LICENSE, carry_license, license_beside, license_for_export, license_title
from ov2vss.presets import configure
from ov2vss.train.loop import Trainer

TERMS = "\nFor non-commercial research alone.\n\nCite us.\n"


def _run(folder: Path, terms: str | None = TERMS) -> Path:
    """A run folder with one checkpoint; the licence lies beside the checkpoint's folder."""
    (folder / "step-00000003").mkdir(parents=True)
    (folder / "step-00000003" / "model.safetensors").write_bytes(b"")
    if terms is not None:
        (folder / LICENSE).write_text(terms)
    return folder


def test_it_is_found_beside_a_run_a_checkpoint_and_a_file(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    for place in (run, run / "step-00000003", run / "step-00000003/model.safetensors"):
        assert license_beside(place) == TERMS
    assert license_beside(_run(tmp_path / "free", None)) is None
    assert license_title(TERMS) == "For non-commercial research alone."


def test_a_training_takes_the_licences_of_all_that_it_starts_from(tmp_path: Path) -> None:
    one, two, free = _run(tmp_path / "a"), _run(tmp_path / "b", "Ask B first.\n"), _run(tmp_path / "c", None)
    out = tmp_path / "out"
    out.mkdir()
    assert carry_license(out, [free]) == []
    assert not (out / LICENSE).exists()
    assert carry_license(out, [one]) == [one]
    assert (out / LICENSE).read_text() == TERMS
    assert carry_license(out, [one, two]) == [one, two]
    text = (out / LICENSE).read_text()
    assert text.count("Cite us.") == 1
    assert text.endswith("Licence of what these weights were trained from: b\n\nAsk B first.\n")


def test_a_run_that_starts_from_licensed_weights_has_their_licence(tmp_path: Path) -> None:
    fast = ["iterations=1", "per_frame_iterations=1", "batch=1", "save_every=1", "workers=0"]
    Trainer(configure("tiny", fast), tmp_path / "first").fit()
    assert not (tmp_path / "first" / LICENSE).exists()
    (tmp_path / "first" / LICENSE).write_text(TERMS)
    again = configure("tiny", [*fast, f"init={tmp_path}/first/step-00000001"])
    Trainer(again, tmp_path / "second").fit()
    assert (tmp_path / "second" / LICENSE).read_text() == TERMS
    file = tmp_path / "first/step-00000001/model.safetensors"
    Trainer(configure("tiny", [*fast, f"backbone_weights={file}"]), tmp_path / "third").fit()
    assert (tmp_path / "third" / LICENSE).read_text() == TERMS


def test_an_export_keeps_it_and_refuses_to_drop_it(tmp_path: Path) -> None:
    run, mine = _run(tmp_path / "run"), tmp_path / "mine.txt"
    folder = run / "step-00000003"
    assert license_for_export(folder, None, False) == TERMS
    mine.write_text("MIT: do what you like.\n")
    with pytest.raises(OV2VSSError, match=r"under a licence of its own .*'For non-commercial research alone\.'"):
        license_for_export(folder, mine, False)
    assert license_for_export(folder, mine, True) == "MIT: do what you like.\n"
    mine.write_text(f"Ours:\n{TERMS}\nAnd: no warranty.\n")
    assert license_for_export(folder, mine, False) == mine.read_text()
    free = _run(tmp_path / "free", None) / "step-00000003"
    assert license_for_export(free, None, False) is None
    assert license_for_export(free, mine, False) == mine.read_text()
