"""The paper's models at full size with random weights: exported, verified, built by TensorRT-RTX. Tens of minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ov2vss_runtime.bundle.bundle import GRAPHS
from tests.conftest import run_program

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ov2vss-r101", "ov2vss-pvt-b2"])
def test_full_size_exports_and_builds(preset: str, tmp_path: Path) -> None:
    script = ROOT / "benchmarks/untrained.py"
    subprocess.run([sys.executable, script, "--preset", preset, "--out", tmp_path / "run"], check=True)
    done = run_program(
        "ov2vss-export", "--ckpt", tmp_path / "run", "--out", tmp_path / "b", "--rollout", "45", "--json", timeout=3600
    )
    assert done.returncode == 0, done.stderr
    gates = json.loads(done.stdout.splitlines()[-1])["gates"]["fp32"]
    assert all(gate["passed"] for gate in gates), gates
    pytest.importorskip("tensorrt_rtx")
    done = run_program(
        "ov2vss-export", "--bundle", tmp_path / "b", "--engine", "tensorrt-rtx", "--compute", "SM89", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert {p["graph"] for p in json.loads(done.stdout.splitlines()[-1])["plans"]} == set(GRAPHS)
