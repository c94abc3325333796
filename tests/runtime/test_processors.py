from pathlib import Path

import pytest

from ov2vss_runtime.processors import available_threads, physical_cores, quota


def test_hyper_threads_count_once(tmp_path: Path) -> None:
    for number, siblings in {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}.items():
        folder = tmp_path / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert physical_cores([0, 1, 4, 5], tmp_path) == 2
    assert physical_cores([0, 4], tmp_path) == 1
    assert physical_cores([0, 1], tmp_path) == 2
    assert physical_cores([7, 8], tmp_path) == 2  # not described: cores of their own


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", None), ("250000 100000", 2), ("50000 100000", 1), ("?", None)]
)
def test_quota(tmp_path: Path, text: str, count: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota(tmp_path / "cpu.max") == count
    assert quota(tmp_path / "missing") is None


def test_there_is_at_least_one() -> None:
    assert available_threads() >= 1
