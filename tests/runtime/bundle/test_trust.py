"""A bundle executes nothing, and what an engine is given is what was hashed."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ov2vss_runtime.bundle.bundle import MANIFEST, Bundle, file_sha256
from ov2vss_runtime.engines.backends import load_engine
from ov2vss_runtime.errors import BundleError, OV2VSSError
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames
from tests.hand_made import HandMade


def _rehash(folder: Path, graph: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    info = manifest["variants"]["fp32"]["graphs"][graph]
    info["sha256"] = file_sha256(folder / info["file"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_that_changes_after_the_check_is_not_used(backend: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip(backend)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = HandMade().write(tmp_path / "own")
    opened = Bundle.open(folder)
    path = folder / "backbone.onnx"
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(BundleError, match="backbone.onnx is not the file that was exported"):
        load_engine(opened, backend)
    other = Bundle.open(HandMade().write(tmp_path / "other"))
    engine = load_engine(other, backend)
    (other.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="tokenizer.json is not the file"):
        engine.encode_text(["road"])


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    """No hash of the manifest covers them: with zeros in their place the labels would change in silence."""
    folder = HandMade().write(tmp_path / "own")
    model = onnx.load(folder / "backbone.onnx")
    onnx.save(model, folder / "backbone.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    _rehash(folder, "backbone")
    with pytest.raises(BundleError, match="backbone.onnx keeps weights in other files, which no hash covers"):
        load_engine(Bundle.open(folder))


def test_numbers_that_are_not_finite_stop_with_the_name_of_the_graph(tmp_path: Path) -> None:
    frame = moving_frames(1)[0]
    for graph, constant in (("backbone", "mix"), ("decoder", "scale")):
        folder = HandMade().write(tmp_path / graph)
        model = onnx.load(folder / f"{graph}.onnx")
        tensor = next(t for t in model.graph.initializer if t.name == constant)
        broken = np.full_like(onnx.numpy_helper.to_array(tensor), np.nan)
        tensor.CopyFrom(onnx.numpy_helper.from_array(broken, constant))
        (folder / f"{graph}.onnx").write_bytes(model.SerializeToString())
        _rehash(folder, graph)
        stream = Segmenter.load(folder).stream(None, "road; sky")
        for call in (stream.step, stream.logits):
            with pytest.raises(OV2VSSError, match=f"graph {graph} gave numbers that are not finite"):
                call(frame)
