"""Parity gates: is the exported bundle the trained model?

Gate 1 compares every graph with its torch module on the same inputs. Gate 2 streams frames through the exported graphs
with carried state and compares every label map with the torch model in *clip mode*, which knows nothing of rings and
warm-ups: frames 0 .. n*gap and on, across a change of the distant frame and a reset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ov2vss.data.clips import clip_indices
from ov2vss.model import OV2VSS, FrameFeatures
from ov2vss.model.stcf import upsample
from ov2vss_export.graphs import GraphSpec
from ov2vss_runtime.labelmap import label_map
from ov2vss_runtime.ort_engine import OrtEngine
from ov2vss_runtime.stream import Stream
from ov2vss_runtime.vocabulary import Vocabulary

GRAPH_BOUND = 1e-3
"""Largest error of an output, relative to the largest magnitude of that output."""
TEXT_COSINE = 0.999
AGREEMENT_BOUND = 0.999
"""Share of pixels whose label agrees, mean over the roll-out."""
ROLLOUT = 64
RESET_AT = 44
DISTANT_AT = 22


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


@torch.no_grad()
def gate_graphs(engine: OrtEngine, specs: list[GraphSpec], frame: npt.NDArray[np.uint8]) -> list[Gate]:
    """Gate 1: each graph fed with what torch computed before it, so that an error is charged to the right graph."""
    gates = []
    by_name = {spec.name: spec for spec in specs}
    values: dict[str, torch.Tensor] = {"frame": torch.from_numpy(frame)[None]}
    generator = torch.Generator().manual_seed(1)
    for name in ("backbone", "stcf_step", "decoder"):
        spec = by_name[name]
        feed = {k: values.get(k, v) for k, v in spec.inputs.items()}
        if name == "stcf_step":
            # A state of the size that LayerNorm gives it; zeros would hide an error.
            feed["state_in"] = torch.randn(feed["state_in"].shape, generator=generator)
        outputs = spec.module(*feed.values())
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        values |= dict(zip(spec.outputs, outputs, strict=True))
        gates.append(
            _compare(name, spec.outputs, outputs, engine.run_graph(name, {k: v.numpy() for k, v in feed.items()}))
        )
    return gates


def _compare(graph: str, names: list[str], expected: tuple[torch.Tensor, ...], got: list[np.ndarray]) -> Gate:
    errors = {}
    for name, want, have in zip(names, expected, got, strict=True):
        reference = want.numpy()
        scale = max(float(np.abs(reference).max()), 1e-12)
        error = float(np.abs(reference - have).max())
        errors[name] = (error / scale if np.isfinite(have).all() else float("inf"), error)
    worst = max(errors, key=lambda k: errors[k][0])
    return Gate(
        f"{graph} against torch", errors[worst][0], GRAPH_BOUND, False, f"{worst}, max abs {errors[worst][1]:.2g}"
    )


@torch.no_grad()
def gate_text(engine: OrtEngine, encoder: Any, prompts: list[str], quantized: bool) -> Gate:
    """Text graph against torch: error of unit vectors, or the lowest cosine for int8 weights."""
    got, want = engine.encode_text(prompts), encoder.encode(prompts).numpy()
    if quantized:
        cosine = float((got * want).sum(1).min())
        return Gate("text against torch, int8 weights", cosine, TEXT_COSINE, True, "lowest cosine")
    error = float(np.abs(got - want).max())
    return Gate("text against torch", error, 1e-4, False, f"{len(prompts)} prompts, max abs")


class ClipReference:
    """The torch model in clip mode over a growing list of frames; earlier frames enter by their tokens alone."""

    def __init__(self, model: OV2VSS, gap: int, text: npt.NDArray[np.float32]) -> None:
        self.model, self.gap = model, gap
        self.text = torch.from_numpy(text)
        self.tokens: list[torch.Tensor] = []

    @torch.no_grad()
    def encode(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        return self.model.encode(torch.from_numpy(frame).permute(2, 0, 1)[None])

    @torch.no_grad()
    def logits(self, frame: npt.NDArray[np.uint8], distant: FrameFeatures) -> torch.Tensor:
        """``[1, N, H/8, W/8]`` of the next frame, given the features of its distant frame."""
        target = self.encode(frame)
        self.tokens.append(target.tokens)
        indices = clip_indices(len(self.tokens) - 1, self.model.config.references, self.gap)
        past = self.model.stcf.chain([self.tokens[i] for i in indices[:-1]], target.lattice)
        context = self.model.context(distant.tokens, distant.lattice)
        return self.model.predict(target, past, context, self.text).logits


@dataclass(frozen=True)
class Rollout:
    """Agreement of exported and torch label maps, per frame, and the largest relative error of the logits."""

    agreement: npt.NDArray[np.float64]
    clear_agreement: float
    """Over pixels whose two best logits differ by more than a thousandth of the frame's logit range."""
    error: float


def rollout(
    engine: OrtEngine,
    model: OV2VSS,
    vocabulary: Vocabulary,
    embeddings: npt.NDArray[np.float32],
    templates: tuple[str, ...],
    gap: int,
    frames: list[npt.NDArray[np.uint8]],
) -> Rollout:
    """Stream ``frames`` (RGB, the model's size) both ways; the distant frame changes once, the stream resets once."""
    stream = Stream(engine, vocabulary, templates, gap, "farthest", embeddings=embeddings)
    clip = ClipReference(model, gap, embeddings)
    distant = frames[-1]
    agreement, clear, error = [], [], 0.0
    for index, frame in enumerate(tqdm(frames, desc="verify", unit="frame", disable=None, leave=False)):
        if index in (0, DISTANT_AT, RESET_AT):
            if index == RESET_AT:
                stream.reset()
                clip = ClipReference(model, gap, embeddings)
            distant = frames[-1] if index != DISTANT_AT else frames[DISTANT_AT // 2]
            stream.set_distant(distant)
            distant_features = clip.encode(distant)
        have = stream.logits(frame)
        want = clip.logits(frame, distant_features)
        scale = float(want.abs().max())
        error = max(error, float(np.abs(want[0].numpy() - have).max()) / max(scale, 1e-12))
        full = upsample(want, frame.shape[:2])[0]
        expected = full.argmax(0).numpy()
        same = label_map(have, frame.shape[:2], engine.threads) == expected
        agreement.append(same.mean())
        if full.shape[0] > 1:
            top = full.topk(2, dim=0).values
            margin = (top[0] - top[1]).numpy() > 1e-3 * float(full.max() - full.min())
            clear.append(same[margin].mean() if margin.any() else 1.0)
    return Rollout(np.asarray(agreement), float(np.mean(clear)) if clear else 1.0, error)


def gate_rollout(result: Rollout) -> list[Gate]:
    """Gate 2 from a roll-out."""
    worst = int(result.agreement.argmin())
    return [
        Gate(
            "roll-out label agreement",
            float(result.agreement.mean()),
            AGREEMENT_BOUND,
            True,
            f"{len(result.agreement)} frames, worst {result.agreement[worst]:.5f} at frame {worst}",
        ),
        Gate("roll-out agreement off near-ties", result.clear_agreement, AGREEMENT_BOUND, True),
        Gate("roll-out logits", result.error, GRAPH_BOUND, False, "relative to the frame's largest logit"),
    ]


def gate_reset(
    engine: OrtEngine,
    vocabulary: Vocabulary,
    templates: tuple[str, ...],
    embeddings: Any,
    gap: int,
    frames: list[npt.NDArray[np.uint8]],
) -> Gate:
    """After a reset the first frame is bit-identical, and two interleaved streams equal two separate runs."""

    def fresh() -> Stream:
        return Stream(engine, vocabulary, templates, gap, embeddings=embeddings)

    ahead, behind = frames[:4], frames[-4:]
    alone = [[s.logits(f) for f in part] for s, part in ((fresh(), ahead), (fresh(), behind))]
    one, two = fresh(), fresh()
    mixed: list[list[np.ndarray]] = [[], []]
    for a, b in zip(ahead, behind, strict=True):
        mixed[0].append(one.logits(a))
        mixed[1].append(two.logits(b))
    one.reset()
    pairs = [(alone[0][0], one.logits(ahead[0]))]
    pairs += [(x, y) for part in (0, 1) for x, y in zip(alone[part], mixed[part], strict=True)]
    different = sum(not np.array_equal(x, y) for x, y in pairs)
    return Gate("reset and interleaved streams", float(different), 0, False, "frames that differ in any bit")


def generated_frames(size: tuple[int, int], count: int = ROLLOUT) -> list[npt.NDArray[np.uint8]]:
    """Frames of the generated test clips at ``size``: what a bundle is verified on when no video is given."""
    from ov2vss.data.shapes import CLIP_FRAMES, ShapesVideos
    from ov2vss_runtime.preprocess import resize_frame

    videos = ShapesVideos("test")
    return [resize_frame(videos.frame(i // CLIP_FRAMES, i % CLIP_FRAMES), size) for i in range(count)]


def video_frames(path: str, size: tuple[int, int], count: int = ROLLOUT) -> list[npt.NDArray[np.uint8]]:
    """The first ``count`` frames of a video at ``size``."""
    from ov2vss.errors import OV2VSSError
    from ov2vss_runtime.preprocess import resize_frame
    from ov2vss_runtime.video import VideoReader

    frames = [resize_frame(f.rgb, size) for f in _take(VideoReader(path), count)]
    if len(frames) <= RESET_AT:
        raise OV2VSSError(f"{path} has {len(frames)} frames", f"verify with a video of at least {RESET_AT + 1}")
    return frames


def _take(frames: Any, count: int) -> Iterator[Any]:
    iterator = iter(frames)
    for _ in range(count):
        item = next(iterator, None)
        if item is None:
            return
        yield item
