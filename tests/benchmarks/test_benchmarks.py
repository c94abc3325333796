"""The measuring scripts: what they count, that what they compare is comparable, and that they run."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ov2vss import checkpoint
from ov2vss.torch_engine import TorchEngine
from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import Stream
from tests.conftest import TrainedRun, moving_frames

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(SCRIPTS))

from factors import factors  # noqa: E402
from limit import floor_ms, operations  # noqa: E402
from reference import AuthorsScheme, TorchScheme, write_graphs  # noqa: E402
from report import bounds  # noqa: E402


def script(name: str, *args: str | Path, cache: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / name), *map(str, args)]
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)


def test_operations_of_a_hand_made_graph(tmp_path: Path) -> None:
    """A strided grouped convolution, a product with a dynamic axis, and one between QDQ nodes."""
    weights = {
        "w": np.zeros((6, 2, 3, 3), np.float32),
        "m": np.zeros((5, 7), np.float32),
        "q": np.zeros((7, 4), np.int8),
        "s": np.float32(1),
        "z": np.int8(0),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["n", "m"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "s", "z"], ["pd"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["qd"]),
        helper.make_node("MatMul", ["pd", "qd"], ["r"]),
    ]
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 10, 12]),
            helper.make_tensor_value_info("n", TensorProto.FLOAT, ["N", 5]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("r", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    convolution = 2 * (6 * 5 * 6) * (2 * 3 * 3)
    assert operations(path, classes=3) == Counter(float=convolution + 2 * 3 * 5 * 7, int8=2 * 3 * 7 * 4)
    assert operations(path, classes=30)["int8"] == 10 * 2 * 3 * 7 * 4


def test_floor() -> None:
    counted = {"backbone": Counter(float=6e9, int8=8e9), "decoder": Counter(float=2e9)}
    peak = {"fp32": (200.0, "a"), "bf16": (400.0, "b"), "int8": (800.0, "c")}
    assert floor_ms(counted, "int8", peak) == pytest.approx(1000 * (8 / 200 + 8 / 800))
    assert floor_ms({"backbone": Counter(float=8e9)}, "bf16", peak) == pytest.approx(20.0)
    assert floor_ms(counted, "fp16", peak) is None


@pytest.mark.whole
def test_the_authors_scheme_gives_the_stream(bundle: Path, trained: TrainedRun, tmp_path: Path) -> None:
    """Five backbone passes and explicit affinities a frame: the labels of the stream, in torch and on the engine."""
    segmenter = Segmenter.load(bundle)
    frames = moving_frames(12, (112, 168))
    stream = segmenter.stream()
    wanted = [stream.step(f) for f in frames]
    engine = AuthorsScheme(
        segmenter.engine, write_graphs(str(trained.folder), segmenter.engine.size, tmp_path), stream.embeddings
    )
    found = checkpoint.find(trained.folder)
    model, size = found.build(), segmenter.engine.size
    in_torch = TorchScheme(model, size, 1, stream.embeddings)
    streamed = Stream(
        TorchEngine(model, size, None), stream.vocabulary, ("{}",), found.run.train.gap, embeddings=stream.embeddings
    )
    for frame, result in zip(frames, wanted, strict=True):
        for scheme in (engine, in_torch, streamed):
            labels = getattr(labelled := scheme.step(frame), "labels", labelled)
            assert (labels == result.labels).mean() > 0.9995, type(scheme)
    assert {"backbone", "step", "decoder", "labels"} <= engine.stages.seconds.keys()


@pytest.mark.whole
def test_latency_measures_side_by_side_and_reports(bundle: Path, trained: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    done = script(
        "latency.py", "--bundle", bundle, "--ckpt", trained.folder, "--reference", "--torch", "--rounds", 1,
        "--frames", 2, "--backend", "onnxruntime", "--precision", "fp32", "--stages", "--json", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    rows = {r["title"]: r for r in record["rows"]}
    assert list(rows) == [
        "onnxruntime fp32",
        "torch eager fp32",
        "authors' scheme, onnxruntime fp32",
        "image method, onnxruntime fp32",
        "authors' scheme, torch eager fp32",
    ]
    for title in ("torch eager fp32", "authors' scheme, onnxruntime fp32", "authors' scheme, torch eager fp32"):
        assert rows[title]["same_labels"] > 0.9995, title
    assert rows["image method, onnxruntime fp32"]["same_labels"] is None
    ratio = next(c for c in record["comparisons"] if c["what"].startswith("authors' scheme against the stream"))
    row = rows["onnxruntime fp32"]
    slow, fast = rows["authors' scheme, onnxruntime fp32"]["ms"]["network"]["p50"], row["ms"]["network"]["p50"]
    assert ratio["ratio"] == pytest.approx(slow / fast)
    assert ratio["ratio"] > 1.5

    stages = sum(row["ms"][s]["mean"] for s in ("preprocess", "backbone", "step", "decoder", "labels"))
    assert 0.5 * row["ms"]["network"]["mean"] < stages <= row["ms"]["network"]["mean"]
    assert row["ms"]["network"]["mean"] < row["ms"]["whole"]["mean"]
    assert row["run_fps"] > 0
    assert row["peak_mb"] > 50
    assert 0 < row["floor_ms"] < fast
    assert record["machine"]["command"].startswith("python benchmarks/latency.py --bundle")
    assert "--json" not in record["machine"]["command"]
    assert f"{fast:.1f}" in done.stdout
    assert f"| step | {row['ms']['step']['mean']:.2f} |" in done.stdout
    report = tmp_path / "docs" / "benchmarks.md"
    report.parent.mkdir()
    made = script("report.py", out, "--out", report)
    assert made.returncode == 0, made.stderr
    assert f"{fast:.1f}" in report.read_text()
    assert f"| {row['floor_ms']:.1f} | {row['share_of_limit']:.0%} | " in report.read_text()
    assert (report.parent / "images" / "benchmark-latency-0-0.png").stat().st_size > 5_000


@pytest.mark.whole
@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--size", "64x96"), "a bundle has one size; give --preset or --ckpt"),
        (("--classes", "20,x"), "'20,x' is not a list of numbers of classes"),
        (("--bundle", "nowhere"), "nowhere"),
        (("--bundle", "BUNDLE", "--size", "64x96"), "a bundle has one size; give --preset or --ckpt"),
        (("--bundle", "BUNDLE", "--torch"), "need the checkpoint that shapes was exported from; add --ckpt"),
        (("--torch", "--bundle", "street-lite", "--ckpt", "CKPT"), "is not what street-lite was exported from"),
        (("--bundle", "BUNDLE", "--backend", "onnxruntime:cuda"), "nothing could be measured; onnxruntime:cuda fp32: "),
    ],
)
def test_wrong_options_of_latency(args: tuple[str, ...], told: str, bundle: Path, trained: TrainedRun) -> None:
    known = {"BUNDLE": bundle, "CKPT": trained.folder}
    done = script("latency.py", *(known.get(a, a) for a in args))
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.whole
def test_sizes_are_exported_once_and_not_mixed(trained: TrainedRun, tmp_path: Path) -> None:
    """Two sizes of one checkpoint are two bundles of one name, and nothing is compared across them."""
    out = tmp_path / "latency.json"
    args = ("--ckpt", trained.folder, "--size", "70x100", "--size", "128x192", "--backend", "onnxruntime")
    args += ("--precision", "fp32", "--rounds", "1", "--frames", "2", "--json", out)
    done = script("latency.py", *args, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "size 70x100 -> 64x96 (multiples of 32)" in done.stderr
    record = json.loads(out.read_text())
    small, large = record["rows"]
    assert (small["size"], large["size"]) == ([64, 96], [128, 192])
    assert sum(small["operations"]["backbone"].values()) < sum(large["operations"]["backbone"].values())
    for row, ratio in zip((small, large), record["comparisons"], strict=True):
        assert ratio["size"] == row["size"]
        assert ratio["ratio"] == pytest.approx(row["ms"]["network"]["p50"] / row["ms"]["backbone"]["p50"])
    again = script("latency.py", *args, cache=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "exporting" in done.stderr
    assert "exporting" not in again.stderr


@pytest.mark.whole
def test_parity_puts_speed_and_accuracy_together(bundle: Path, trained: TrainedRun, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    done = script(
        "parity.py", "--bundle", bundle, "--ckpt", trained.folder, "--data", "shapes", "--split", "val",
        "--backend", "onnxruntime", "--precision", "fp32", "--precision", "int8", "--temporal", "--rate", 10,
        "--json", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, fp32, int8 = json.loads(out.read_text())["splits"]["val"]
    assert (first["title"], fp32["title"], int8["title"]) == (
        "torch eager fp32",
        "onnxruntime fp32",
        "onnxruntime int8",
    )
    gates = Bundle.open(bundle).manifest.variants["fp32"].verified["gates"]
    said = next(g["detail"] for g in gates if "mIoU" in g["gate"])
    assert f"torch {100 * first['miou']:.2f}" in said
    assert fp32["miou"] == pytest.approx(first["miou"], abs=1e-4)
    assert 0.9995 < fp32["agreement"] <= 1
    assert 0.9 < int8["agreement"] < 1
    assert int8["worst_agreement"] < int8["agreement"]
    assert first["vc8"] is not None
    assert "| along the flow | flips a second | boundary F | edge lag |" in done.stdout
    for row in (first, fp32, int8):
        assert row["flips_per_second"] == pytest.approx(10 * (1 - row["agreement_in_time"]))
    assert fp32["agreement_in_time"] == pytest.approx(first["agreement_in_time"], abs=1e-3)
    wrong = script("parity.py", "--data", "shapes", "--ckpt", trained.folder)
    assert wrong.returncode == 1
    assert "is not what street-lite was exported from" in wrong.stderr


@pytest.mark.whole
@pytest.mark.parametrize("topic", ["streams", "memory"])
def test_scaling_topics(bundle: Path, tmp_path: Path, topic: str) -> None:
    out = tmp_path / "scaling.json"
    done = script("scaling.py", "--what", topic, "--bundle", bundle, "--frames", 4, "--json", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["topics"][topic]["rows"]
    assert len(rows) >= 4
    assert all(v > 0 for row in rows for v in row.values())


@pytest.mark.whole
def test_other_sizes_need_the_own_checkpoint(bundle: Path, trained: TrainedRun) -> None:
    """Said before anything is measured, so that no other topic's figures are lost."""
    for args, told in (
        (("--bundle", bundle), "need the checkpoint that shapes was exported from; add --ckpt"),
        (("--ckpt", trained.folder), "is not what street-lite was exported from"),
    ):
        done = script("scaling.py", "--what", "words", "--what", "size", *args)
        assert done.returncode == 1
        assert told in done.stderr
        assert "words:" not in done.stdout


@pytest.mark.whole
def test_operators(bundle: Path, tmp_path: Path) -> None:
    for engine in (("onnxruntime", "fp32"), ("openvino", "fp32")):
        if engine[0] == "openvino":
            pytest.importorskip("openvino")
        out = tmp_path / "operators.json"
        done = script("operators.py", "--bundle", bundle, "--backend", engine[0], "--classes", 4, "--json", out)
        assert done.returncode == 0, done.stderr
        graphs = json.loads(out.read_text())["graphs"]
        assert set(graphs) == {"backbone", "stcf_step", "decoder"}
        for graph in graphs.values():
            assert graph["ms"] > 0
            assert sum(ms for _, ms in graph["by_operator"]) > 0.2 * graph["ms"]


def test_bounds_are_checked_from_the_records() -> None:
    """Made-up records: one bound that holds, one that is missed."""
    rows = [
        {"words": 124, "candidates": "all", "median_ms": 10.0, "same_label": 1.0},
        {"words": 1200, "candidates": 64, "median_ms": 15.0, "same_label": 0.98},
    ]
    topics = {"words": {"rows": rows, "new_words_ms": [160.0, 170.0, 180.0]}}
    record = {"bundle": "b", "backend": "e", "precision": "p", "topics": topics}
    table = "\n".join(bounds({"scaling": [record]}))
    assert "| 1.50 | <= 1.6 | holds |" in table
    assert "| 170.00 | <= 150 | **missed** |" in table


def test_speed_is_reported_with_its_accuracy() -> None:
    """Made-up records: the fastest configuration is the one that is checked, and its own mIoU stands beside it."""
    row = {"bundle": "street-lite", "preset": "lite", "kind": "stream", "classes": 20}
    rows = [
        row | {"title": "slow", "fps": 20.0, "run_fps": 15.0},
        row | {"title": "fast", "fps": 30.0, "run_fps": 19.0},
    ]
    splits = {"test": [{"title": "slow", "miou": 0.7}, {"title": "fast", "miou": 0.6}]}
    parity = {"bundle": "street-lite", "data": "camvid", "splits": splits}
    table = "\n".join(bounds({"latency": [{"rows": rows}], "parity": [parity]}))
    assert "fast (mIoU 0.600 on camvid test): fps of graphs and label map | 30.00 | >= 25 | holds |" in table
    assert "fast (mIoU 0.600 on camvid test): fps of ov2vss-run | 19.00 | >= 20 | **missed** |" in table
    assert "slow" not in table


def test_a_foreign_file_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    done = script("report.py", path)
    assert done.returncode == 1
    assert "is not a record of these scripts" in done.stderr


def test_what_smoothing_costs_is_measured() -> None:
    done = script("temporal.py", "--only", "cost", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "smoothing adds, 352x640, 20 words" in done.stdout
    done = script("temporal.py", "--only", "davis")
    assert done.returncode == 2
    assert "--data is needed" in done.stderr


def test_lines_of_time_hold_or_do_not() -> None:
    from temporal import lines

    def part(gain: float) -> dict:
        return {"plain": {"miou": 70.0, "vc8": 90.0}, "smooth": {"miou": 70.0 + gain, "vc8": 91.0}}

    rows = lines({"val": {"all": part(0.3), "0 to 49": part(0.1)}, "test": {"all": part(-0.05)}})
    assert [holds for _, _, holds in rows] == [True, False, True]
    curve = {
        k: {"miou": m, "seen": s} for k, m, s in (("1", 70, 1.0), ("3", 69, 0.33), ("5", 66, 0.2), ("auto", 69.2, 0.3))
    }
    assert [holds for _, _, holds in lines({"curve": curve})] == [True, False, True]


def test_ratios_that_change_several_things_are_products() -> None:
    """Scheme alone first; the factors of every such ratio in the records multiply to it."""
    record = json.loads((SCRIPTS / "results/latency-full.json").read_text())
    composed = [c for c in record["comparisons"] if "against the best stream" in c["what"]]
    assert len(composed) == 8
    for c in composed:
        text = factors(record["rows"], c["bundle"], c["size"], c["classes"], c["what"])
        assert text.startswith("scheme ")
        values = [float(v) for v in re.findall(r" (\d+\.\d\d)", text)]
        assert len(values) >= 3
        assert np.prod(values) == pytest.approx(c["ratio"], rel=0.02)
    rows = [r for r in record["rows"] if r["kind"] != "reference"]
    assert factors(rows, c["bundle"], c["size"], c["classes"], c["what"]) == ""
