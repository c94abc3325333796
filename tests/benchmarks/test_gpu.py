"""The GPU measurements, dry-run on a processor: what a part writes, and how a run goes on where it was cut short."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def run(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPTS / "gpu.py", "--device", "cpu", "--quick", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_a_run_goes_on_with_the_parts_that_are_missing(bundle: Path, tmp_path: Path) -> None:
    record = tmp_path / "gpu.json"
    asked = ("--json", record, "--bundle", bundle)
    done = run(*asked, "--part", "limits")
    assert done.returncode == 0, done.stderr
    first = json.loads(record.read_text())["parts"]
    assert list(first) == ["limits"]
    assert {row["product"] for row in first["limits"]["rows"]} == {"fp32", "tf32", "fp16", "bf16"}
    assert all(row["tflops"] > 0 for row in first["limits"]["rows"])
    done = run(*asked, "--part", "gates", "--part", "graphs")
    assert done.returncode == 0, done.stderr
    parts = json.loads(record.read_text())["parts"]
    assert parts["limits"] == first["limits"], "a part that was done is kept"
    gates = [row for row in parts["gates"]["rows"] if "gates" in row]
    assert [row["precision"] for row in gates] == ["fp32"]
    assert all(row["passed"] == row["gates"] for row in gates)
    assert any(note.startswith("onnxruntime:cuda: no:") for note in parts["gates"]["notes"])
    rows = parts["graphs"]["rows"]
    assert {row["streams"] for row in rows} == {1, 2}
    assert all(row["p99_ms"] >= row["p50_ms"] > 0 and row["fps"] > 0 for row in rows)
    assert all({"backbone", "step", "decoder"} <= set(row["stages_ms"]) for row in rows)
    assert rows[-1]["nodes_off_the_gpu"], "on a processor every node is off the GPU"


def test_another_record_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"rows": []}')
    done = run("--json", other, "--part", "machine")
    assert done.returncode == 1
    assert "is not a record of this script" in done.stderr
    assert other.read_text() == '{"rows": []}'


def test_training_is_measured_on_generated_clips(tmp_path: Path) -> None:
    record = tmp_path / "gpu.json"
    done = run("--json", record, "--part", "training")
    assert done.returncode == 0, done.stderr
    training = json.loads(record.read_text())["parts"]["training"]
    tiny = next(row for row in training["rows"] if row.get("model") == "tiny")
    assert tiny["weights_finite"]
    assert tiny["one_frame_s"] > 0
    assert tiny["clip_s"] > 0
    group = next(row for row in training["rows"] if "process_group" in row)
    assert group["sum_of_ones"] == 1.0
    assert group["gradient_difference"] < 1e-6
    assert training["notes"] == ["16-mixed: only on a GPU"]


def test_packed_wheels_are_joined_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from gpu_pack import UNPACK, pack

    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/__init__.py", "value = 7\n" * 500)
    out = tmp_path / "out"
    out.mkdir()
    listed = pack([wheel], out, 100)
    assert len(listed[wheel.name]["parts"]) > 1
    assert listed[wheel.name]["sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    (out / "wheels.json").write_text(json.dumps(listed))
    (out / "unpack.py").write_text(UNPACK)
    subprocess.run([sys.executable, out / "unpack.py"], check=True, timeout=60)
    assert (out / "site/thing/__init__.py").read_text().startswith("value = 7")
    (out / listed[wheel.name]["parts"][0]).write_bytes(b"x" * 100)
    done = subprocess.run([sys.executable, out / "unpack.py"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "did not arrive whole" in done.stderr
