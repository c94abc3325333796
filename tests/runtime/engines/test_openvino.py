"""The OpenVINO engine against ONNX Runtime on the same bundle."""

import json
from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.errors import BackendError, BundleError
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames, run_program, write_video

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _logits(bundle: Path, backend: str, precision: str, words: list[str] | None = None) -> list[np.ndarray]:
    stream = Segmenter.load(bundle, backend, precision).stream(None, words, gap=2)
    return [stream.logits(frame) for frame in moving_frames(8, (128, 192))]


def test_float32_streams_equal_onnxruntime(bundle: Path, own_cache: Path) -> None:
    """States and contexts are held over frames: an output array that was used twice would show."""
    for have, want in zip(_logits(bundle, "openvino", "fp32"), _logits(bundle, "onnxruntime", "fp32"), strict=True):
        assert np.abs(have - want).max() < 1e-4 * np.abs(want).max()
    assert any(own_cache.rglob("*.blob")), "nothing was cached"


def test_more_classes_than_a_chunk(bundle: Path) -> None:
    words = [f"thing {k}" for k in range(75)]
    have, want = (_logits(bundle, b, "fp32", words)[-1] for b in ("openvino", "onnxruntime"))
    assert have.shape[0] == 75
    assert np.abs(have - want).max() < 1e-4 * np.abs(want).max()


def test_every_precision_passes_its_gates(bundle: Path) -> None:
    done = run_program(
        "ov2vss-export", "--verify-only", bundle, "--backend", "openvino", "--precision", "fp32,bf16,int8", "--json"
    )
    if "no bfloat16 arithmetic" in done.stderr:
        pytest.skip("this processor has no bfloat16 arithmetic")
    assert done.returncode == 0, done.stderr
    gates = json.loads(done.stdout.splitlines()[-1])["gates"]
    assert {p: all(g["passed"] for g in found) for p, found in gates.items()} == dict.fromkeys(
        ("fp32", "bf16", "int8"), True
    )
    # bf16 is really computed in bf16: its error is that of eight bits, not of twenty-four.
    values = {p: next(g["value"] for g in found if g["gate"].startswith("backbone")) for p, found in gates.items()}
    assert values["fp32"] < 1e-5 < 1e-4 < values["bf16"]


def test_one_engine_serves_interleaved_streams(bundle: Path) -> None:
    segmenter, frames = Segmenter.load(bundle, "openvino"), moving_frames(8, (128, 192))
    alone = [
        [s.logits(f) for f in part] for s, part in ((segmenter.stream(), frames), (segmenter.stream(), frames[::-1]))
    ]
    one, two = segmenter.stream(), segmenter.stream()
    for k, (a, b) in enumerate(zip(frames, frames[::-1], strict=True)):
        assert np.array_equal(one.logits(a), alone[0][k])
        assert np.array_equal(two.logits(b), alone[1][k])


def test_the_program_with_openvino(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", moving_frames(6, (128, 192)))
    for name in ("openvino", "onnxruntime"):
        done = run_program(
            "ov2vss-run", video, "--bundle", bundle, "--backend", name, "--out", tmp_path / f"{name}.mp4",
            "--masks", tmp_path / name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    from PIL import Image

    pairs = [
        tuple(
            np.asarray(Image.open(tmp_path / name / "video" / f"{k:06d}.png")) for name in ("openvino", "onnxruntime")
        )
        for k in range(6)
    ]
    assert np.mean([(a == b).mean() for a, b in pairs]) > 0.999


def test_what_is_not_offered_is_said(bundle: Path) -> None:
    with pytest.raises(BackendError, match="does not compute in 'fp16'; choose one of: fp32, bf16, int8"):
        Segmenter.load(bundle, "openvino", "fp16")
    with pytest.raises(BackendError, match="backend 'tensorflow' is not offered"):
        Segmenter.load(bundle, "tensorflow")
    opened = Bundle.open(bundle)
    only = opened.manifest.model_copy(update={"variants": {"fp32": opened.manifest.variants["fp32"]}})
    with pytest.raises(BundleError, match="no precision 'int8' for openvino"):
        Segmenter.load(Bundle(opened.folder, only), "openvino", "int8")
