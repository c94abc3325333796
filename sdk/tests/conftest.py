"""Frames and engines that the tests of the C++ runtime share: one engine of each runtime for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from ov2vss_runtime import Segmenter
from ov2vss_runtime.video.open_source import open_source
from ov2vss_runtime.video.source import close_source

from .library import BUILD, ROOT, CEngine

Frames = list[npt.NDArray[np.uint8]]

if not (BUILD / "libov2vss.so").exists():
    pytest.skip(f"no library in {BUILD}: build the SDK with the preset sdk", allow_module_level=True)


@pytest.fixture(scope="session")
def frames() -> Frames:
    """Sixteen frames of a street, and eight of another place: a cut after the tenth."""
    source = open_source(ROOT / "docs/images/street.mp4")
    street = [frame.rgb for _, frame in zip(range(16), source, strict=False)]
    close_source(source)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 9, 3), np.uint8)
    other = np.kron(small, np.ones((60, 72, 1), np.uint8))[:360, :640]
    return [*street[:10], *(np.ascontiguousarray(np.roll(other, 5 * k, 1)) for k in range(8)), *street[10:]]


@pytest.fixture(scope="session")
def openvino() -> Segmenter:
    pytest.importorskip("openvino")
    return Segmenter.load(backend="openvino", threads=1)


@pytest.fixture(scope="session")
def engine() -> Iterator[CEngine]:
    pytest.importorskip("openvino")
    made = CEngine(threads=1)
    yield made
    made.close()
