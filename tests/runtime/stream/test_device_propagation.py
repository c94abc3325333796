"""The past on a device: the graph against the kernel, and a stream of the GPU providers' path, run on the processor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ov2vss_runtime.engines.device_blend import sampling_grid
from ov2vss_runtime.engines.providers import OWN_GRAPHS
from ov2vss_runtime.stream.device_propagation import DevicePropagator
from ov2vss_runtime.stream.flow import places
from ov2vss_runtime.stream.options import StreamOptions
from ov2vss_runtime.stream.propagation import Smoothing, propagate
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.runtime.stream.test_propagation import picture


def test_the_stored_graph_is_what_the_exporter_makes() -> None:
    from ov2vss_export.propagation_graph import propagation_graph

    assert OWN_GRAPHS["propagation"].read_bytes() == propagation_graph().SerializeToString(deterministic=True)


@pytest.mark.parametrize(("words", "cells"), [(1, (12, 20)), (2, (1, 20)), (11, (44, 80)), (124, (30, 54))])
def test_the_graph_moves_and_blends_as_the_kernel_does(words: int, cells: tuple[int, int]) -> None:
    """All of the rule, doubt included; places beyond every border. What is left is rounding of places."""
    rng = np.random.default_rng(words)
    past, present = (4 * rng.standard_normal((words, *cells)).astype(np.float32) for _ in range(2))
    flow = rng.uniform(-5, 5, (*cells, 2)).astype(np.float32)
    trust = rng.uniform(0, 1, cells).astype(np.float32)
    rules = Smoothing(share=0.85, lean=2.0, sure=3.0)
    session = onnxruntime.InferenceSession(str(OWN_GRAPHS["propagation"]), providers=["CPUExecutionProvider"])
    feed = {"past": past, "present": present, "grid": sampling_grid(places(flow))}
    feed |= {"share": trust * np.float32(rules.share), "lean": np.array(rules.lean, np.float32)}
    feed["steep"] = np.array(1 / rules.sure, np.float32)
    moved, blended = session.run(["moved", "blended"], feed)
    np.testing.assert_allclose(moved, propagate(past, flow, cells)[0], atol=3e-4)
    np.testing.assert_allclose(blended, propagate(past, flow, cells, present, trust, rules)[0], atol=3e-4)


@pytest.fixture
def pair(bundle: Path) -> tuple[Segmenter, Segmenter]:
    """The same bundle twice: as it is, and as on a GPU."""
    reference, device = Segmenter.load(bundle), Segmenter.load(bundle)
    device.engine.can = replace(device.engine.can, device_labels=True, device_blend=True)
    return reference, device


@pytest.mark.parametrize(("smooth", "keyframes", "words"), [(True, 1, 5), (False, 3, 40), (True, 2, 300)])
def test_a_stream_on_a_device_labels_as_on_the_processor(
    pair: tuple[Segmenter, Segmenter], smooth: bool, keyframes: int, words: int
) -> None:
    options = StreamOptions(smooth=smooth, keyframes=keyframes)
    names = [f"thing {k}" for k in range(words)]
    reference, device = (s.stream(None, names, options=options) for s in pair)
    assert isinstance(device._propagator, DevicePropagator)
    for t in range(6):
        frame = picture(4 * t)
        want, have = reference.step(frame), device.step(frame)
        assert have.logits is None
        assert have.labels.dtype == want.labels.dtype
        assert (have.propagated, have.age) == (want.propagated, want.age)
        assert (have.labels == want.labels).mean() > 0.999
    for stream in (reference, device):
        stream.set_vocabulary([f"other {k}" for k in range(7)])
    frame = picture(24)
    assert (device.step(frame).labels == reference.step(frame).labels).mean() > 0.999


def test_who_needs_logits_gets_them_from_the_processor(pair: tuple[Segmenter, Segmenter]) -> None:
    for options in (
        StreamOptions(smooth=True, logits=True),
        StreamOptions(smooth=True, confidence=True),
        StreamOptions(smooth=True, unknown_below=0.2),
    ):
        stream = pair[1].stream(None, "a; b", options=options)
        assert not isinstance(stream._propagator, DevicePropagator)
        assert stream.step(picture(0)).logits is not None


def test_a_stream_on_a_device_is_saved_with_its_past(pair: tuple[Segmenter, Segmenter]) -> None:
    options = StreamOptions(smooth=True)
    one, other = (pair[1].stream(None, "a; b; c", options=options) for _ in range(2))
    for t in range(3):
        one.step(picture(4 * t))
    other.load(one.save())
    np.testing.assert_array_equal(one.step(picture(12)).labels, other.step(picture(12)).labels)
