"""``benchmarks/clip_speed.py`` times bundles in turn."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.clip_speed import main
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
