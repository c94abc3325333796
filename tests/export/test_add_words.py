"""``ov2vss-export --add-vocab`` on the machine where the bundle runs: there is no torch, and no onnx either."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ov2vss_export.cli import main
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.evaluate.test_without_torch import without_torch
from tests.vectors.replay import BUNDLE, FOLDER


def test_words_are_added_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Path(shutil.copytree(FOLDER / BUNDLE, tmp_path / "bundle"))
    words = tmp_path / "garden.txt"
    words.write_text("green box\nyellow star, star\n")

    arguments = ["--add-vocab", str(words), "--bundle", str(bundle)]
    before = Segmenter.load(bundle, threads=1).stream(None, "green box; yellow star, star").embeddings
    done = without_torch(f"from ov2vss_export.cli import main\nmain({arguments!r})")
    assert done.returncode == 0, done.stderr
    assert "2 words as 'garden', 2 embeddings computed" in done.stdout
    segmenter = Segmenter.load(bundle, threads=1)
    assert Bundle.open(bundle).manifest.vocabulary.added == {"garden": [["green box"], ["yellow star", "star"]]}
    kept = segmenter.embeddings(segmenter.words("garden"))
    assert kept is not None
    assert np.array_equal(kept, before)
    assert segmenter.stream(None, "garden").names == ["green box", "yellow star"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    assert "all embeddings were there" in capsys.readouterr().out


def test_a_file_that_is_not_there_leaves_the_bundle_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Path(shutil.copytree(FOLDER / BUNDLE, tmp_path / "bundle"))
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    arguments = ["--add-vocab", str(tmp_path / "missing.txt"), "--bundle", str(bundle)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "missing.txt" in said[0]
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
