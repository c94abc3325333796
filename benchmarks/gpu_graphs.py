"""Exported graphs on a GPU: do they give what the trained model gave, how fast, and which nodes stay off the GPU?"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from gpu_torch import random_words, summary
from workers import drifting

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.bundle.verify import verify_bundle
from ov2vss_runtime.engines.backends import BACKENDS, load_engine, status
from ov2vss_runtime.stream.segmenter import Segmenter

PROCESSOR = ("onnxruntime", "onnxruntime:cpu", "openvino")


def loadable(notes: list[str]) -> list[str]:
    """GPU backends that load here, or onnxruntime on the processor where none does; why not goes into ``notes``."""
    found = []
    for name in BACKENDS:
        if name in PROCESSOR:
            continue
        told = status(name)
        if told.startswith("yes"):
            found.append(name)
        else:
            notes.append(f"{name}: {told}")
    return found or ["onnxruntime"]


def engines(bundles: tuple[str, ...], notes: list[str]) -> Any:
    """Every backend and precision of every bundle, loaded; what does not load goes into ``notes``."""
    for name in bundles:
        bundle = Bundle.open(name)
        for backend in loadable(notes):
            for precision in BACKENDS[backend].precisions if backend not in PROCESSOR else ("fp32",):
                try:
                    yield bundle, backend, precision, load_engine(bundle, backend, precision)
                except Exception as error:
                    notes.append(f"{bundle.manifest.name}, {backend} {precision}: {str(error).splitlines()[0]}")


def gate_rows(bundles: tuple[str, ...]) -> dict[str, Any]:
    """What ``ov2vss-export --verify-only`` says, a row for each gate that fails and one for all that pass."""
    rows, notes = [], []
    for bundle, backend, precision, engine in engines(bundles, notes):
        try:
            gates = verify_bundle(engine)
        except Exception as error:
            notes.append(f"{bundle.manifest.name}, {backend} {precision}: {str(error).splitlines()[0]}")
            continue
        about = {"bundle": bundle.manifest.name, "backend": backend, "precision": precision}
        rows.append(about | {"gates": len(gates), "passed": sum(gate.passed for gate in gates)})
        rows += [about | gate.record() for gate in gates if not gate.passed or "roll-out" in gate.name]
    return {"rows": rows, "notes": notes}


def graph_rows(
    bundles: tuple[str, ...], classes: tuple[int, ...], streams: tuple[int, ...], count: int
) -> dict[str, Any]:
    """Milliseconds by stage of every backend and precision, with one and with several streams."""
    rows, notes = [], []
    for bundle, backend, precision, engine in engines(bundles, notes):
        segmenter = Segmenter(engine)
        frames = drifting(tuple(bundle.manifest.preprocess.size), count)
        try:
            for number in classes:
                words, embeddings = random_words(number, bundle.manifest.vocabulary.embed_dim)
                for together in streams:
                    opened = [segmenter.stream(None, words, embeddings=embeddings) for _ in range(together)]
                    whole: list[float] = []
                    for index, frame in enumerate(frames):
                        if index == count // 3:
                            whole = []
                            before = [dict(stream.stages.seconds) for stream in opened]
                        for stream in opened:
                            began = time.perf_counter()
                            stream.step(frame)
                            whole.append(1000 * (time.perf_counter() - began))
                    stages = Counter()
                    for stream, earlier in zip(opened, before, strict=True):
                        stages.update({k: v - earlier.get(k, 0.0) for k, v in stream.stages.seconds.items()})
                    row = {"bundle": bundle.manifest.name, "backend": backend, "precision": precision}
                    row |= {"classes": number, "streams": together} | summary(whole)
                    row |= {"fps": 1000 / float(np.mean(whole))}
                    row["stages_ms"] = {k: 1000 * v / len(whole) for k, v in stages.items()}
                    rows.append(row)
        except Exception as error:
            notes.append(f"{bundle.manifest.name}, {backend} {precision}: {str(error).splitlines()[0]}")
        if backend.startswith("onnxruntime"):
            rows[-1]["nodes_off_the_gpu"] = off_the_gpu(bundle, engine)
    return {"rows": rows, "notes": notes}


def off_the_gpu(bundle: Bundle, engine: Any) -> dict[str, int]:
    """Nodes of the frame's graphs that ran on the processor, by type, from ONNX Runtime's own profile of one run."""
    import onnxruntime

    found: Counter[str] = Counter()
    for graph in ("backbone", "stcf_step", "decoder"):
        info = bundle.manifest.variants[engine.variant].graphs.get(graph)
        if info is None:
            continue
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.log_severity_level = 3
        options.profile_file_prefix = f"{graph}-"
        session = engine.open_session(bundle.graph_file(engine.variant, graph), engine.providers(graph), options)
        feed = {}
        for tensor in info.inputs:
            shape = [20 if isinstance(axis, str) else axis for axis in tensor.shape]
            feed[tensor.name] = np.zeros(shape, np.dtype(tensor.dtype))
        session.run(None, feed)
        profile = Path(session.end_profiling())
        for event in json.loads(profile.read_text()):
            about = event.get("args", {})
            if event.get("cat") == "Node" and about.get("provider") == "CPUExecutionProvider":
                found[about.get("op_name", "?")] += 1
        profile.unlink()
    return dict(found)
