"""A bundle executes nothing, and what an engine is given is what was hashed."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from ov2vss_runtime.bundle.bundle import MANIFEST, Bundle, file_sha256
from ov2vss_runtime.bundle.outside_weights import outside_files
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


def outside(folder: Path, graphs: Sequence[str] = ("backbone",), listed: bool = True) -> Path:
    """A bundle whose graphs keep their weights in ``GRAPH.weights``, as graphs above 2 GB have to."""
    for graph in graphs:
        model = onnx.load(folder / f"{graph}.onnx")
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:  # axes and shapes are read before weights are
                tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
                onnx.external_data_helper.set_external_data(tensor, f"{graph}.weights")
        model = onnx.external_data_helper.write_external_data_tensors(model, str(folder))
        (folder / f"{graph}.onnx").write_bytes(model.SerializeToString())
        _rehash(folder, graph)
    manifest = json.loads((folder / MANIFEST).read_text())
    for graph in graphs if listed else ():
        info = manifest["variants"]["fp32"]["graphs"][graph]
        info["external"] = [{"file": f"{graph}.weights", "sha256": file_sha256(folder / f"{graph}.weights")}]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_weights_in_other_files_are_hashed_and_handed_on(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits as with weights inside; from memory, so that what lies in the current folder does not matter."""
    pytest.importorskip(backend)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    frame = moving_frames(1)[0]
    expected = Segmenter.load(HandMade().write(tmp_path / "inside"), backend).stream(None, "road; sky").logits(frame)
    graphs = [path.stem for path in (tmp_path / "inside").glob("*.onnx") if path.stem != "stcf_step"]
    folder = outside(HandMade().write(tmp_path / "own"), graphs)
    assert {"text", "backbone", "decoder"} <= set(graphs)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for graph in graphs:
        Path(f"{graph}.weights").write_bytes(bytes((folder / f"{graph}.weights").stat().st_size))
    segmenter = Segmenter.load(folder, backend)
    np.testing.assert_array_equal(segmenter.stream(None, "road; sky").logits(frame), expected)
    opened, path = Bundle.open(folder), folder / "backbone.weights"
    good = path.read_bytes()
    zeroed = bytearray(good)
    at = next(k for k in range(0, len(good), 4) if good[k : k + 4] != bytes(4))
    zeroed[at : at + 4] = bytes(4)  # one weight
    path.write_bytes(zeroed)
    for load in (lambda: Bundle.open(folder), lambda: load_engine(opened, backend)):
        with pytest.raises(BundleError, match=r"backbone\.weights is not the file that was exported"):
            load()
    path.unlink()
    with pytest.raises(BundleError, match=r"backbone\.weights is missing"):
        Bundle.open(folder)
    path.symlink_to(HandMade().write(tmp_path / "third") / "backbone.onnx")
    with pytest.raises(BundleError, match=r"backbone\.weights is missing"):
        Bundle.open(folder)


def test_weights_in_files_that_the_manifest_does_not_list_are_refused(tmp_path: Path) -> None:
    """No hash covers them: with zeros in their place the labels would change in silence."""
    folder = outside(HandMade().write(tmp_path / "own"), listed=False)
    with pytest.raises(BundleError, match=r"keeps weights in 'backbone.weights', which the manifest does not list"):
        load_engine(Bundle.open(folder))


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "sub/weights", "C:x", ".."])
def test_weights_outside_of_the_folder_are_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    folder = outside(HandMade().write(tmp_path / "own"))
    model = onnx.load(folder / "backbone.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = place if entry.key == "location" else entry.value
    (folder / "backbone.onnx").write_bytes(model.SerializeToString())
    _rehash(folder, "backbone")
    with pytest.raises(BundleError, match=f"keeps weights in '{place}', which the manifest does not list"):
        load_engine(Bundle.open(folder))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["variants"]["fp32"]["graphs"]["backbone"]["external"] = [{"file": place, "sha256": "0" * 64}]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="is not a plain file name"):
        Bundle.open(folder)


def test_no_arrangement_of_the_bytes_hides_a_file(tmp_path: Path) -> None:
    """Protocol buffers may be written in many ways: fields in another order, lengths with spare bytes, inner graphs."""
    entry = onnx.StringStringEntryProto(key="location", value="w.bin").SerializeToString()
    key, value = b"\x0a\x08location", b"\x12\x05w.bin"
    assert entry == key + value

    def field(number: int, content: bytes, spare: bool = False) -> bytes:
        return _length(number << 3 | 2, spare) + _length(len(content), spare) + content

    tensors = [field(13, key + value), field(13, value + key), field(13, key + value, spare=True),
               field(13, b"\x0a\x88\x00location" + value), field(13, b"\x0a\x05other" + value + key)]  # fmt: skip
    for tensor in tensors:
        assert onnx.TensorProto.FromString(tensor).external_data[0].value == "w.bin"  # as ONNX itself reads it
        graph = field(5, tensor)
        inside = field(1, field(5, field(6, graph)))  # node, attribute, graph
        constant = field(1, field(5, field(5, tensor)))
        sparse = field(15, field(1, tensor))
        for content in (graph, inside, constant, sparse):
            assert outside_files(field(7, content)) == {"w.bin"}
        assert outside_files(field(25, field(7, field(5, field(5, tensor))))) == {"w.bin"}  # function
    assert outside_files(onnx.load(HandMade().write(tmp_path / "b") / "backbone.onnx").SerializeToString()) == set()
    for broken in (b"\x3a\x05abc", b"\x3b", b"\x08", b"\xff" * 12):
        with pytest.raises(ValueError):
            outside_files(broken)


def _length(number: int, spare: bool = False) -> bytes:
    """A number as a protocol buffer has it; ``spare``: with a byte more than it needs."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number | 128, 0] if spare else [*parts, number])


def test_a_graph_that_no_file_can_hold_is_refused_before_the_work() -> None:
    from torch import nn

    from ov2vss_export.onnx_export import check_weights_fit

    check_weights_fit("backbone", nn.Linear(20_000, 20_000, device="meta"))  # 1.5 GB
    with pytest.raises(
        BundleError, match="the backbone graph has 3.4 GB of weights, and an ONNX file holds less than 2"
    ):
        check_weights_fit("backbone", nn.Linear(30_000, 30_000, device="meta"))


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
