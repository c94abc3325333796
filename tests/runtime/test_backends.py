"""What backends say where they cannot run, and the options that TensorRT's provider is given."""

from pathlib import Path

import onnxruntime
import pytest

from ov2vss_runtime.bundle import Bundle
from ov2vss_runtime.errors import BackendError
from ov2vss_runtime.ort_engine import profile_options
from ov2vss_runtime.segmenter import Segmenter
from tests.conftest import run_program

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
        "trt_profile_max_shapes": "tokens:64x128,attention_mask:64x128",
    }
    decoder = profile_options(graphs["decoder"].inputs, "decoder")
    sizes = [decoder[f"trt_profile_{k}_shapes"].split("class_embeddings:")[1] for k in ("min", "opt", "max")]
    assert sizes == ["1x64", "32x64", "128x64"]
    assert "guidance:16x16x24" in decoder["trt_profile_min_shapes"]
