"""The tracked files stay within the budget that CONTRIBUTING.md gives."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOTAL = 60
BUDGET = {
    folder: float(limit)
    for folder, limit in re.findall(r"^\|.*`([\w/]+)` \| ([\d.]+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
}
REST = float(re.findall(r"^\| everything else.*\| ([\d.]+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)[0])


def mebibytes(folder: str) -> float:
    """Tracked files below a folder; the whole tree for an empty name."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--", folder or "."]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return sum((ROOT / n).lstat().st_size for n in names if n and (ROOT / n).is_file()) / 2**20


def test_the_parts_make_up_the_whole() -> None:
    assert len(BUDGET) == 5
    assert sum(BUDGET.values()) + REST == pytest.approx(TOTAL)


@pytest.mark.parametrize(
    "folder",
    [
        "runtime/ov2vss_runtime/bundles",
        "models",
        "docs/images",
        "benchmarks/results",
        "web",
    ],
)
def test_a_part_keeps_its_budget(folder: str) -> None:
    assert mebibytes(folder) <= BUDGET[folder]


def test_the_rest_keeps_its_budget() -> None:
    assert mebibytes("") - sum(mebibytes(folder) for folder in BUDGET) <= REST


def test_the_whole_tree_travels() -> None:
    assert 0 < mebibytes("") <= TOTAL
