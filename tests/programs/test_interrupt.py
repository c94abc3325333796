"""Ctrl-C while a source is silent: exit code 130 within two seconds, whatever the source waits for."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import SCRIPTS

WITHIN = 2.0
"""Seconds."""


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Accepts connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                kept.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


CAMERA = """
import threading, time, numpy as np, cv2
class Camera:
    def __init__(self, index): self.count = 0
    def isOpened(self): return True
    def set(self, *_): return True
    def release(self): pass
    def read(self):
        self.count += 1
        if self.count > 3: time.sleep(60)
        return True, np.zeros((64, 96, 3), np.uint8)
cv2.VideoCapture = Camera
from ov2vss_runtime.cli import main
main()
"""


def interrupt(program: subprocess.Popen) -> tuple[float, str]:
    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    try:
        _, stderr = program.communicate(timeout=20)
    finally:
        program.kill()
    return time.monotonic() - began, stderr


@pytest.mark.parametrize(
    "kind", ["silent pipe", "half a frame", "stalled TCP", "stalled HTTP", "stalled RTSP", "camera"]
)
def test_ctrl_c_ends_a_silent_source(kind: str, bundle: Path, silent_server: int, tmp_path: Path) -> None:
    source = {
        "stalled TCP": f"tcp://127.0.0.1:{silent_server}",
        "stalled HTTP": f"http://127.0.0.1:{silent_server}/a.ts",
        "stalled RTSP": f"rtsp://127.0.0.1:{silent_server}/a",
        "camera": "0",
    }.get(kind, "-")
    start = [str(SCRIPTS / "python"), "-c", CAMERA] if kind == "camera" else [str(SCRIPTS / "ov2vss-run")]
    raw = ["--raw", "64x96"] if source == "-" else []
    outputs = ["--no-video", "--jsonl", "a.jsonl"]
    program = subprocess.Popen(
        [*start, source, "--bundle", str(bundle), *raw, *outputs, "--threads", "1"], cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that runs the tests in the background ignores Ctrl-C for all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    frames = {"silent pipe": 2, "half a frame": 2.5}.get(kind, 0)
    if frames:
        os.write(program.stdin.fileno(), bytes(int(frames * 64 * 96 * 3)))
    part, deadline = tmp_path / "a.jsonl.part", time.monotonic() + 60
    if frames or kind == "camera":
        while not part.exists() or len(part.read_text().splitlines()) < int(frames):
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
    else:
        time.sleep(2.5)  # into the opening of the stream, which takes five seconds to fail
        assert program.poll() is None, program.stderr.read()
    seconds, stderr = interrupt(program)
    assert program.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1:] == ["interrupted"], stderr
    assert seconds < WITHIN
    if frames:
        assert len(part.read_text().splitlines()) == 2  # what was done is kept


def test_ctrl_c_while_a_program_is_still_loading(tmp_path: Path) -> None:
    """The first seconds are imports, where an exception is a traceback, or taken for a module that is missing."""
    (tmp_path / "slow.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n")
    code = "from ov2vss_runtime.start import start; start('slow')"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert time.monotonic() - began < 15
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {f"ov2vss-{name}" for name in ("run", "batch", "train", "eval", "export")}
    for name, entry in scripts.items():
        module, function = entry.split(":")
        assert module.endswith(".start"), name
        assert callable(getattr(importlib.import_module(module), function))


IN_AN_ENGINE = """
import sys, threading, time, click, numpy as np, onnxruntime as ort
from ov2vss_runtime.console import program
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
inside = threading.Event()

def work():
    while True:
        inside.set()
        session.run(None, {"x": np.ones((256, 256), np.float32)})

@click.command()
@click.argument("model")
@program
def main(model):
    threading.Thread(target=work, name="ov2vss-live", daemon=True).start()
    inside.wait()
    time.sleep(0.05)
    ENDS

main()
"""


@pytest.mark.parametrize(
    ("ends", "code"),
    [("raise KeyboardInterrupt", 130), ("raise OSError(28, 'no space')", 1), ("pass", 0)],
    ids=["interrupted", "failed", "done"],
)
def test_a_thread_inside_an_engine_does_not_abort_the_end(ends: str, code: int, tmp_path: Path) -> None:
    """C++ that comes back to an interpreter on its way down is unwound; what may not be unwound aborts the process."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [256, 256]) for name in "xy")
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "product", [x], [y]), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    onnx.save(model, tmp_path / "product.onnx")
    script = IN_AN_ENGINE.replace("ENDS", ends)
    command = [SCRIPTS / "python", "-c", script, tmp_path / "product.onnx"]
    program = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert program.returncode == code, program.stderr
    assert "terminate" not in program.stderr
