"""What backends say where they cannot run, and the options that TensorRT's provider is given."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ov2vss_runtime.bundle.bundle import Bundle
from ov2vss_runtime.engines.onnxruntime import OrtEngine
from ov2vss_runtime.engines.providers import LABEL_MAP, profile_options
from ov2vss_runtime.errors import BackendError
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.segmenter import Segmenter
from ov2vss_runtime.stream.stream import StreamOptions
from tests.conftest import moving_frames, run_program

NO_GPU = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.mark.skipif(not NO_GPU, reason="this onnxruntime has CUDA")
@pytest.mark.parametrize("backend", ["onnxruntime:cuda", "onnxruntime:tensorrt"])
def test_a_missing_provider_is_an_error_and_no_silent_fallback(bundle: Path, tmp_path: Path, backend: str) -> None:
    with pytest.raises(BackendError, match="this onnxruntime has no .*ExecutionProvider"):
        Segmenter.load(bundle, backend)
    done = run_program("ov2vss-export", "--verify-only", bundle, "--backend", backend)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_profiles_name_every_input_of_a_dynamic_graph(bundle: Path) -> None:
    graphs = Bundle.open(bundle).manifest.variants["fp32"].graphs
    assert profile_options(graphs["backbone"].inputs, "backbone") == {}
    assert profile_options(graphs["text"].inputs, "text") == {
        "trt_profile_min_shapes": "tokens:1x1,attention_mask:1x1",
        "trt_profile_opt_shapes": "tokens:16x16,attention_mask:16x16",
        "trt_profile_max_shapes": "tokens:64x256,attention_mask:64x256",
    }
    decoder = profile_options(graphs["decoder"].inputs, "decoder")
    sizes = [decoder[f"trt_profile_{k}_shapes"].split("class_embeddings:")[1] for k in ("min", "opt", "max")]
    assert sizes == ["1x64", "32x64", "128x64"]
    assert "guidance:16x16x24" in decoder["trt_profile_min_shapes"]


@pytest.mark.parametrize("count", [1, 2, 16, 17, 33, 34, 64, 65, 130])
def test_chunks_of_classes(count: int) -> None:
    """They cover every class once, none is alone, and the logits do not depend on the size."""
    from ov2vss_runtime.engines.onnxruntime import chunks
    from ov2vss_runtime.engines.openvino import CLASS_COUNTS, fill_up

    for size in (8, 16, 32):
        parts = chunks(count, size)
        assert np.concatenate([np.arange(count)[p] for p in parts]).tolist() == list(range(count))
        assert count == 1 or all(p.stop - p.start > 1 for p in parts)
    rows = np.arange(count, dtype=np.float32)[:, None]
    filled, parts = fill_up(rows, CLASS_COUNTS)
    assert {p.stop - p.start for p in parts} <= set(CLASS_COUNTS)
    assert np.concatenate([filled[p] for p in parts])[:count].tolist() == rows.tolist()
    assert parts[-1].stop == len(filled)
    assert (filled[count:] == count - 1).all()


def test_the_size_of_a_chunk_does_not_change_a_bit(bundle: Path) -> None:
    engine = OrtEngine(Bundle.open(bundle))
    words = np.random.default_rng(0).standard_normal((49, engine.bundle.manifest.vocabulary.embed_dim)).astype("f4")
    features = engine.backbone(np.random.default_rng(1).integers(0, 256, (*engine.size, 3)).astype(np.uint8))
    guidance, _ = engine.step(features, features.context, engine.initial_state())
    whole = engine._decode(features, guidance, words, 64)
    assert all(np.array_equal(engine._decode(features, guidance, words, k), whole) for k in (8, 16, 32))
    assert np.array_equal(engine.decode(features, guidance, words), whole)


@pytest.mark.parametrize("count", [5, 75, 300])
def test_labels_made_on_the_device_equal_those_of_the_kernel(bundle: Path, count: int) -> None:
    """The path of the GPU providers, on the processor: chunks, running argmax, uint8 and uint16."""
    engine = OrtEngine(Bundle.open(bundle))
    words = np.random.default_rng(0).standard_normal((count, engine.bundle.manifest.vocabulary.embed_dim)).astype("f4")
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    frame = moving_frames(1, engine.size)[0]
    features = engine.backbone(frame)
    guidance, _ = engine.step(features, features.context, engine.initial_state())
    for size in ((100, 150), (180, 260)):
        wanted = label_map(engine.decode(features, guidance, words), size)
        found = engine.labels(features, guidance, words, size)
        assert found.dtype == wanted.dtype
        assert (found == wanted).mean() > 0.9999
    assert not engine.can.device_labels, "on a processor the kernel is faster"


def test_the_stream_takes_labels_from_a_device(bundle: Path) -> None:
    frames = moving_frames(4, (112, 168))
    reference, segmenter = Segmenter.load(bundle), Segmenter.load(bundle)
    segmenter.engine.can = replace(segmenter.engine.can, device_labels=True)
    words = [f"thing {k}" for k in range(50)]
    for top in (0, 20):
        options = StreamOptions(top_classes=top)
        one, other = (s.stream(None, words, options=options) for s in (segmenter, reference))
        for frame in frames:
            have, want = one.step(frame), other.step(frame)
            assert have.logits is None
            assert (have.labels == want.labels).mean() > 0.9999
    asked = segmenter.stream(None, words, options=StreamOptions(logits=True)).step(frames[0])
    assert asked.logits.shape[0] == 50


def test_the_stored_label_graph_is_what_the_exporter_makes() -> None:
    from ov2vss_export.label_graph import label_graph

    assert LABEL_MAP.read_bytes() == label_graph().SerializeToString(deterministic=True)
