"""``benchmarks/clip_speed.py`` times bundles in turn, those that are named and those that it makes."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.clip_speed import made, main
from ov2vss_runtime.bundle.bundle import Bundle
from tests.hand_made import HandMade


def test_a_row_for_each_bundle_and_number_of_words(tmp_path: Path) -> None:
    folders = [str(HandMade(state=state).write(tmp_path / f"state-{state}")) for state in (False, True)]
    folders.append(f"{folders[0]}=120:40")
    done = CliRunner().invoke(main, [*folders, "--words", "2,5", "--rounds", "2"])
    assert done.exit_code == 0, done.output
    rows = [line.split(" | ") for line in done.output.splitlines()[2:]]
    assert [row[2] for row in rows] == ["2", "2", "2", "5", "5", "5"]
    assert [row[6] for row in rows if row[0] == "| state-False"] == ["1.000", "1.000"]
    assert [row[0] for row in rows[:3]] == ["| state-False", "| state-True", "| state-False=120:40"]


def test_bundles_of_random_weights_are_made_once_and_timed_in_processes_of_their_own(
    small_clip: str, tmp_path: Path
) -> None:
    folder = made(tmp_path, small_clip, "neighbour", (70, 100))
    manifest = Bundle.open(folder).manifest
    assert (folder.name, manifest.preprocess.size) == (f"{small_clip}-neighbour-70x100", (64, 96))
    before = (folder / "manifest.json").stat().st_mtime_ns
    args = ["--made", str(tmp_path), "--models", small_clip, "--size", "70x100", "--tiled", ""]
    done = CliRunner().invoke(main, [*args, "--words", "3", "--backend", "onnxruntime", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    rows = [line.split(" | ") for line in done.output.splitlines()[2:]]
    assert [row[:3] for row in rows] == [[f"| {folder.name}", "onnxruntime fp32", "3"]]
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_bundles_are_named_or_made() -> None:
    for args in ([], ["b16", "--made", "folder"]):
        done = CliRunner().invoke(main, args)
        assert done.exit_code == 2
        assert "name bundles, or give --made DIR" in done.output
