import os
import subprocess
import sys
from pathlib import Path

import pytest

from ov2vss_runtime.processors import available_threads, physical_cores


def test_hyper_threads_count_once(tmp_path: Path) -> None:
    for number, siblings in {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}.items():
        folder = tmp_path / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert physical_cores([0, 1, 4, 5], tmp_path) == 2
    assert physical_cores([0, 4], tmp_path) == 1
    assert physical_cores([0, 1], tmp_path) == 2
    assert physical_cores([7, 8], tmp_path) == 2  # not described: cores of their own


COUNT = "from ov2vss_runtime.processors import available_threads; print(available_threads())"


def counted(before: str = "", **environment: str) -> int:
    """What a fresh process counts, after running ``before``."""
    command = [sys.executable, "-c", before + COUNT]
    return int(subprocess.run(command, env=os.environ | environment, capture_output=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_that_may_use_one_processor_counts_one() -> None:
    one = min(os.sched_getaffinity(0))
    assert counted(f"import os; os.sched_setaffinity(0, [{one}])\n") == 1


def test_a_limit_of_the_user_counts() -> None:
    assert counted(LOKY_MAX_CPU_COUNT="1") == 1


def test_no_limit_counts_every_core_once() -> None:
    listed = {Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in os.sched_getaffinity(0)}
    if not all(file.is_file() for file in listed):
        pytest.skip("this system does not describe its cores")
    cores = {file.read_text() for file in listed}
    assert 1 <= available_threads() <= len(cores)
