"""What a precision must hold, and the gates that compare an engine with what was exported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.bundle.bundle import COMPUTED, Bundle
from ov2vss_runtime.bundle.decisive import edits
from ov2vss_runtime.bundle.parity import Parity, graphs_of
from ov2vss_runtime.engines.bundle_engine import BundleEngine
from ov2vss_runtime.stream.stream import Stream

log = logging.getLogger("ov2vss")
MOST_CLASSES_COUNTED = 33
COUNT_BOUNDS = {"fp32": 1e-5, "fp16": 5e-3, "tf32": 5e-3, "bf16": 2e-2, "int8": 2e-2}
"""By the precision of the decoder."""


@dataclass(frozen=True)
class Bounds:
    """What a precision must hold.

    Attributes:
        graph: largest error of a graph's output against torch, relative to the output's largest magnitude.
        logits: the same for the logits of a roll-out.
        agreement: mean share of pixels with torch's label.
        clear: the same outside near-ties.
        miou: largest difference of mIoU, in points.
        stored: root mean square of the difference to what was exported, relative to its own root mean square. For
            int8 on other engines than the exporter's, whose roundings are their own: the difference to torch, as a
            multiple of that which the exported file had in onnxruntime.
        text: the first of the two for embeddings.
        other: share of cells with torch's label on drawn frames, which no calibration has seen, outside near-ties.
        ties: share of the logits' range under which the two best are too close for this precision to call.
    """

    graph: float
    logits: float
    agreement: float
    clear: float
    miou: float
    stored: float
    text: float
    other: float
    ties: float = 1e-3


BOUNDS = {
    "fp32": Bounds(1e-3, 1e-3, 0.9995, 0.9999, 0.05, 1e-4, 1e-3, 0.9999),
    "fp16": Bounds(5e-2, 5e-2, 0.995, 0.999, 0.2, 1e-2, 1e-2, 0.99),
    "tf32": Bounds(5e-2, 5e-2, 0.995, 0.999, 0.2, 1e-2, 1e-2, 0.99),
    "bf16": Bounds(2e-1, 2e-1, 0.98, 0.985, 1.0, 1.5e-1, 2e-2, 0.98, ties=5e-2),
    "int8": Bounds(1.0, 1.0, 0.98, 0.985, 1.0, 2.0, 1e-3, 0.8),
}
"""int8 is judged by its labels: single values of a quantized map may be far off without changing any. A text graph with
int8 weights computes in float32. bf16 and tf32 are no precisions of a bundle, but what an engine makes of its fp32
graphs; tf32 has fp16's ten bits of mantissa, and so its bounds."""
SAME_ENGINE = 2e-2
"""``stored`` for int8 on the engine that exported it."""
SHALLOW_BF16 = 5e-2
"""``stored`` for graphs of a few layers in bf16; errors of the backbone's sixty add up."""


@dataclass(frozen=True)
class Gate:
    """One line of the report: ``value`` against ``bound``; ``above`` says which side is good."""

    name: str
    value: float
    bound: float
    above: bool
    detail: str = ""

    @property
    def passed(self) -> bool:
        return bool(np.isfinite(self.value)) and (self.value >= self.bound if self.above else self.value <= self.bound)

    def row(self) -> str:
        relation = ">=" if self.above else "<="
        mark = "pass" if self.passed else "FAIL"
        return f"{mark}  {self.name:<34} {self.value:<12.6g} {relation} {self.bound:<8g} {self.detail}"

    def record(self) -> dict[str, Any]:
        value = float(self.value) if np.isfinite(self.value) else str(self.value)
        return {"gate": self.name, "value": value, "bound": self.bound, "passed": self.passed, "detail": self.detail}


def gate_manifest(bundle: Bundle) -> list[Gate]:
    """Whether the manifest still says what was exported; no gate for bundles of releases that kept no copy."""
    found = edits(bundle)
    if found is None:
        log.warning("%s was exported by an earlier release: nothing holds its manifest", bundle.folder)
        return []
    return [Gate("manifest as exported", len(found), 0, False, "; ".join(found[:3]) or "names, frames, state, time")]


def gate_stored(parity: Parity, engine: BundleEngine, found: dict[str, npt.NDArray[np.float32]]) -> list[Gate]:
    """Each graph alone against what was exported (for fp32: against torch), the worst output of each."""
    expected, trained, gates = parity.expected[engine.variant], parity.expected["fp32"], []
    variants = engine.bundle.manifest.variants
    graphs, made = variants[engine.variant].graphs, variants[engine.variant].made_from
    own = {g for g in graphs if made and graphs[g] != variants[made].graphs.get(g)}
    for graph in graphs_of(graphs):
        weights = graphs[graph].weights
        # A text graph with int8 weights computes in float32: it is held to what was exported like any other.
        against_torch = weights == "int8" and graph != "text" and not engine.rounds_as_exported
        errors = {}
        for name, want in expected.items():
            if name.startswith(f"{graph}."):
                have = found.get(name)
                if have is None or have.shape != want.shape or not np.isfinite(have).all():
                    errors[name] = float("inf")
                elif against_torch:
                    errors[name] = _relative(have, trained[name]) / max(_relative(want, trained[name]), 1e-3)
                else:
                    errors[name] = _relative(have, want)
        worst = max(errors, key=lambda k: errors[k])
        bounds = BOUNDS[engine.precision if engine.precision in COMPUTED else weights]
        bound = bounds.text if graph == "text" else bounds.stored
        if made and graph in own:
            bound = bounds.graph  # another graph than that of the samples: what torch's own gates allow
        if weights == "int8" and graph != "text" and engine.rounds_as_exported:
            bound = SAME_ENGINE
        elif engine.precision == "bf16" and graph in ("stcf_step", "decoder"):
            bound = SHALLOW_BF16
        detail = f"{worst.split('.')[1]}, {'times the error of the exported file' if against_torch else 'relative'}"
        gates.append(Gate(f"{graph} as exported", errors[worst], bound, False, detail))
    return gates


def gate_other_frames(found: npt.NDArray[np.float32], trained: npt.NDArray[np.float32], precision: str) -> Gate:
    """Labels of a sampled roll-out over drawn frames against torch's: frames unlike those that a graph was calibrated
    and judged on. Cells in a near-tie do not count."""
    bounds = BOUNDS[precision]
    best = np.sort(trained, axis=1)
    clear = np.ones(trained[:, 0].shape, bool)
    if trained.shape[1] > 1:
        clear = best[:, -1] - best[:, -2] > bounds.ties * (trained.max() - trained.min())
    same = (found.argmax(1) == trained.argmax(1))[clear]
    share = float(same.mean()) if same.size and np.isfinite(found).all() else 0.0
    return Gate("roll-out on other frames", share, bounds.other, True, f"{clear.sum()} cells of drawn frames")


def gate_sampled_rollout(
    parity: Parity,
    variant: str,
    precision: str,
    found: npt.NDArray[np.float32],
    rounds_as_exported: bool = True,
    made: bool = False,
) -> Gate:
    """Share of sampled cells whose best class is the exported one; cells in a near-tie do not count.

    In int8 on other engines than the exporter's the best class is compared with torch's, and the bound is the share
    that the exported file had, less two points: generated frames are unlike those that it was calibrated on, and every
    engine rounds in its own way.
    """
    stored, trained = parity.expected[variant]["rollout"], parity.expected["fp32"]["rollout"]
    torch_truth = precision == "int8" and not rounds_as_exported
    bounds, want = BOUNDS[precision], trained if torch_truth else stored
    if found.shape != want.shape or not np.isfinite(found).all():
        return Gate("roll-out as exported", 0.0, bounds.clear, True, "wrong shape, or not finite")
    best = np.sort(want, axis=1)
    clear = np.ones(want[:, 0].shape, bool)
    if want.shape[1] > 1:
        clear = best[:, -1] - best[:, -2] > bounds.ties * (want.max() - want.min())

    def share(logits: npt.NDArray[np.float32]) -> float:
        same = (logits.argmax(1) == want.argmax(1))[clear]
        return float(same.mean()) if same.size else 1.0

    bound = share(stored) - 0.02 if torch_truth else bounds.other if made else bounds.clear
    return Gate("roll-out as exported", share(found), bound, True, f"{clear.sum()} cells of {len(want)} frames")


def gate_reset(make_stream: Callable[[], Stream], frames: Sequence[npt.NDArray[np.uint8]]) -> Gate:
    """After a reset the first frame is bit-identical, and two interleaved streams equal two separate runs."""
    ahead, behind = frames[:4], frames[-4:]
    alone = [[s.logits(f) for f in part] for s, part in ((make_stream(), ahead), (make_stream(), behind))]
    one, two = make_stream(), make_stream()
    mixed: list[list[np.ndarray]] = [[], []]
    for a, b in zip(ahead, behind, strict=True):
        mixed[0].append(one.logits(a))
        mixed[1].append(two.logits(b))
    one.reset()
    pairs = [(alone[0][0], one.logits(ahead[0]))]
    pairs += [(x, y) for part in (0, 1) for x, y in zip(alone[part], mixed[part], strict=True)]
    different = sum(not np.array_equal(x, y) for x, y in pairs)
    return Gate("reset and interleaved streams", float(different), 0, False, "frames that differ in any bit")


def gate_class_counts(engine: BundleEngine, frame: npt.NDArray[np.uint8]) -> Gate:
    """A class's logits do not depend on how many others there are: lists of 1 to 33 words against one word at a time.

    Engines choose other code for other sizes, and some of it is wrong.
    """
    width = engine.bundle.manifest.vocabulary.embed_dim
    words = np.random.RandomState(0).standard_normal((MOST_CLASSES_COUNTED, width)).astype(np.float32)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    features = engine.backbone(frame)
    guidance, _ = engine.step(features, features.context, engine.initial_state())
    alone = np.concatenate([engine.decode(features, guidance, words[k : k + 1]) for k in range(MOST_CLASSES_COUNTED)])
    errors = {
        n: _relative(engine.decode(features, guidance, words[:n]), alone[:n])
        for n in range(2, MOST_CLASSES_COUNTED + 1)
    }
    worst = max(errors, key=lambda n: errors[n])
    kind = (
        engine.precision
        if engine.precision in COMPUTED
        else engine.bundle.manifest.variants[engine.variant].graphs["decoder"].weights
    )
    return Gate(
        "class counts",
        errors[worst],
        COUNT_BOUNDS[kind],
        False,
        f"1 to {MOST_CLASSES_COUNTED}, worst {worst}, relative",
    )


def _relative(have: npt.NDArray[np.float32], want: npt.NDArray[np.float32]) -> float:
    """Root mean square of the difference over that of ``want``."""
    return _rms(have - want) / max(_rms(want), 1e-12)


def _rms(values: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
