"""Labels, peak memory, start and time a frame of ov2vss-cli beside the Python runtime, on whole clips, in turn::

    python sdk/tools/parity.py --frames 200 --engines openvino:fp32,openvino:int8 VIDEO VIDEO VIDEO

Every line compares two processes that saw the same raw frames on standard input: pixels that differ, and the ratios
C++ / Python of peak memory, of the time from the start (C++: of main) to the first labels, and of a step. Times
mean something on a machine that does nothing else. Exits with 1 where a pixel differs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "runtime/ov2vss_runtime/bundles/street-lite"


def python_side(backend: str, precision: str, threads: int, size: tuple[int, int], labels: Path, began: float) -> None:
    """The Python runtime on raw frames of standard input; the facts of ov2vss-cli --json on the last line."""
    from ov2vss_runtime import Segmenter

    stream = Segmenter.load(BUNDLE, backend, precision, threads).stream()
    h, w = size
    frames, busy, first = 0, 0.0, 0.0
    with labels.open("wb") as out:
        while len(data := sys.stdin.buffer.read(h * w * 3)) == h * w * 3:
            frame = np.frombuffer(data, np.uint8).reshape(h, w, 3)
            start = time.perf_counter()
            found = stream.step(frame, frames / 25).labels
            busy += time.perf_counter() - start
            first = first or time.time() - began
            out.write(found.tobytes())
            frames += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"first_labels_seconds": first, "step_ms": 1000 * busy / frames, "peak_memory_mib": peak}))


def run(command: list[Any], frames: Path) -> dict[str, Any]:
    """The last line of what a program prints; frames go to its standard input."""
    with frames.open("rb") as source:
        done = subprocess.run([str(part) for part in command], stdin=source, capture_output=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.decode().strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def raw_frames(video: Path, count: int, out: Path) -> tuple[int, int]:
    """Decoded frames of a video as RGB; their size."""
    from ov2vss_runtime.video.open_source import open_source
    from ov2vss_runtime.video.source import close_source

    source, size = open_source(video), (0, 0)
    with out.open("wb") as file:
        for _, frame in zip(range(count), source, strict=False):
            size = (frame.rgb.shape[0], frame.rgb.shape[1])
            file.write(frame.rgb.tobytes())
    close_source(source)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engines", default="openvino:fp32,openvino:int8")
    parser.add_argument("--cli", type=Path, default=ROOT / "build/sdk/sdk/ov2vss-cli")
    parser.add_argument("--runtime", default="", help="libonnxruntime.so, for onnxruntime")
    chosen = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for video in chosen.videos:
            raw, ours, theirs = place / "frames.rgb", place / "c.u8", place / "python.u8"
            h, w = raw_frames(video, chosen.frames, raw)
            for engine in chosen.engines.split(","):
                backend, precision = engine.split(":")
                program = [chosen.cli, "--bundle", BUNDLE, "--backend", backend, "--precision", precision, "--json"]
                program += ["--threads", chosen.threads, "--size", f"{h}x{w}", "--labels", ours]
                if chosen.runtime and backend == "onnxruntime":
                    program += ["--runtime", chosen.runtime]
                python = [
                    sys.executable,
                    __file__,
                    "-",
                    "--python-side",
                    backend,
                    precision,
                    chosen.threads,
                    h,
                    w,
                    theirs,
                ]
                c = run(program, raw)
                p = run([*python, time.time()], raw)
                one, other = (np.fromfile(path, np.uint8) for path in (ours, theirs))
                differ = int((one != other).sum()) if len(one) == len(other) else -1
                different += differ != 0
                ratio = {
                    key: round(c[key] / p[key], 3) for key in ("peak_memory_mib", "first_labels_seconds", "step_ms")
                }
                print(f"{video.name} {engine}: {differ} of {len(one)} pixels differ; C++ / Python {ratio}", flush=True)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    if "--python-side" in sys.argv:
        given = sys.argv[sys.argv.index("--python-side") + 1 :]
        python_side(given[0], given[1], int(given[2]), (int(given[3]), int(given[4])), Path(given[5]), float(given[6]))
    else:
        main()
