"""Samples of what the exported graphs gave, and the inputs that they were given: made again alike on any machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from ov2vss_runtime.bundle.bundle import GRAPHS, Bundle, Manifest
from ov2vss_runtime.bundle.rollout import synthetic_frames
from ov2vss_runtime.engines.wiring import Wiring
from ov2vss_runtime.errors import BundleError

SAMPLES_OF_AN_OUTPUT = 4096
"""Values kept of every output of a graph."""
PROMPTS = ("road", "a photo of a traffic light.", "somebody on a bicycle, at night", "Straße 🚦", "word " * 100)
CLASSES = 5
"""Class embeddings that the decoder alone is run with."""


def graph_inputs(manifest: Manifest, scales: dict[str, float], encode: Callable[[list[str]], dict]) -> dict[str, dict]:
    """Inputs of every graph, by graph and name: normal numbers of the scale that the input has on a real frame.

    Args:
        manifest: of the bundle.
        scales: root mean square of ``<graph>.<input>``.
        encode: texts to the text graph's feed.
    """
    wiring, graphs = Wiring.of(manifest, "fp32"), manifest.variants["fp32"].graphs
    feeds = {
        "text": encode(list(PROMPTS)),
        "backbone": {wiring.frame: synthetic_frames(manifest.preprocess.size, 1)[0][None]},
    }
    unit = {manifest.dense.output: 0, wiring.words: 1}
    for graph in graphs_of(graphs)[2:]:
        feed = {}
        for number, info in enumerate(graphs[graph].inputs):
            shape = [d if isinstance(d, int) else CLASSES for d in info.shape]
            values = np.random.RandomState(number).standard_normal(shape) * scales[f"{graph}.{info.name}"]
            if (axis := unit.get(info.name)) is not None:
                values /= np.linalg.norm(values, axis=axis, keepdims=True)
            feed[info.name] = values.astype(info.dtype)
        feeds[graph] = feed
    return feeds


def graphs_of(graphs: Iterable[str]) -> list[str]:
    """The graphs that a bundle has, of :data:`ov2vss_runtime.bundle.bundle.GRAPHS`, as they run one after the other."""
    there = set(graphs)
    return [graph for graph in GRAPHS if graph in there]


def sample(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Up to :data:`SAMPLES_OF_AN_OUTPUT` values of an array, always the same ones."""
    flat = np.asarray(values, np.float32).reshape(-1)
    if flat.size <= SAMPLES_OF_AN_OUTPUT:
        return flat
    return flat[np.sort(np.random.RandomState(0).choice(flat.size, SAMPLES_OF_AN_OUTPUT, replace=False))]


def run_graphs(engine: Any, feeds: dict[str, dict]) -> dict[str, npt.NDArray[np.float32]]:
    """Sampled outputs ``<graph>.<output>`` of an engine."""
    found = {}
    for graph, feed in feeds.items():
        for name, values in engine.run_graph(graph, feed).items():
            found[f"{graph}.{name}"] = sample(values)
    return found


@dataclass(frozen=True)
class Parity:
    """What ``parity.safetensors`` holds.

    Attributes:
        scales: root mean square of the inputs of the graphs on a real frame.
        expected: per variant, sampled outputs by ``<graph>.<output>``, and ``rollout``.
        embeddings: class embeddings of the roll-out ``[N, D]``.
    """

    scales: dict[str, float]
    expected: dict[str, dict[str, npt.NDArray[np.float32]]]
    embeddings: npt.NDArray[np.float32]

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Flat, as they are stored."""
        stored = {f"scale/{name}": np.array([value], np.float32) for name, value in self.scales.items()}
        for variant, values in self.expected.items():
            stored |= {f"expected/{variant}/{name}": np.ascontiguousarray(v) for name, v in values.items()}
        return stored | {"embeddings": self.embeddings}

    @classmethod
    def of(cls, bundle: Bundle) -> Parity:
        path = bundle.folder / bundle.manifest.parity.file
        try:
            tensors = load_safetensors(bundle.read(bundle.manifest.parity))
            embeddings = tensors.pop("embeddings")
            scales: dict[str, float] = {}
            expected: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
            for key, value in tensors.items():
                kind, name, *rest = key.split("/")
                if kind == "scale":
                    scales[name] = float(value[0])
                else:
                    expected.setdefault(name, {})[rest[0]] = value
        except (SafetensorError, ValueError, KeyError, IndexError) as error:
            raise BundleError(f"{path} cannot be read ({type(error).__name__})", "export the bundle again") from None
        return cls(scales, expected, embeddings)
