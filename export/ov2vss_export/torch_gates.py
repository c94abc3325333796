"""Parity gates against the trained torch model: what an export must pass.

Gate 1 compares every graph with its torch module on the same inputs. Gate 2 streams frames through the exported graphs
with carried state and compares every label map with the torch model in *clip mode*, which knows nothing of rings and
warm-ups: frames 0 .. n*gap and on, across a change of the distant frame and a reset. Gate 3 compares mIoU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ov2vss.data.clips import clip_indices
from ov2vss.data.shapes import CLIP_FRAMES, ShapesVideos
from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS, FrameFeatures
from ov2vss.model.stcf import upsample
from ov2vss_export.graphs import GraphSpec
from ov2vss_runtime.bundle.bundle import DECODER_PARTS, GRAPHS, GraphInfo, Manifest
from ov2vss_runtime.bundle.gates import BOUNDS, Gate
from ov2vss_runtime.bundle.parity import sample
from ov2vss_runtime.bundle.rollout import RESET_AT, rolled_logits, stream_maker
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.engines.onnxruntime import OrtEngine
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.stream import Stream
from ov2vss_runtime.video.file import VideoReader

TEXT_COSINE = 0.999
TEXT_ERROR = 1e-4


@dataclass(frozen=True)
class GraphReference:
    """Inputs and outputs of the graphs of a frame, as torch computes them one after the other."""

    feeds: dict[str, dict[str, npt.NDArray[Any]]]
    outputs: dict[str, dict[str, npt.NDArray[np.float32]]]

    def scales(self) -> dict[str, float]:
        """Root mean square of every floating-point input, as ``<graph>.<input>``."""
        return {
            f"{graph}.{name}": float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
            for graph, feed in self.feeds.items()
            for name, values in feed.items()
            if values.dtype == np.float32
        }


@torch.no_grad()
def graph_reference(specs: list[GraphSpec], frame: npt.NDArray[np.uint8]) -> GraphReference:
    """Each graph fed with what torch computed before it, so that an error is charged to the right graph."""
    by_name = {spec.name: spec for spec in specs}
    values = dict.fromkeys(by_name["backbone"].inputs, torch.from_numpy(frame)[None])
    generator = torch.Generator().manual_seed(1)
    feeds, results = {}, {}
    for name in (name for name in (*GRAPHS[1:], *DECODER_PARTS) if name in by_name):
        spec = by_name[name]
        feed = {k: values.get(k, v) for k, v in spec.inputs.items()}
        if name == "stcf_step":
            # A state of the size that LayerNorm gives it; zeros would hide an error.
            for state in (k for k in feed if k not in values):
                feed[state] = torch.randn(feed[state].shape, generator=generator)
        outputs = run_module(spec, feed)
        values |= outputs
        feeds[name] = {k: v.numpy() for k, v in feed.items()}
        results[name] = {k: v.numpy() for k, v in outputs.items()}
    return GraphReference(feeds, results)


def run_module(spec: GraphSpec, feed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs of a graph's torch module by name."""
    outputs = spec.module(*(feed[name] for name in spec.inputs))
    return dict(zip(spec.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


@torch.no_grad()
def sampled_outputs(specs: list[GraphSpec], feeds: dict[str, dict]) -> dict[str, npt.NDArray[np.float32]]:
    """What :func:`ov2vss_runtime.bundle.parity.run_graphs` gives, from torch; without the text graph."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for spec in specs:
        if spec.name in feeds and spec.name != "text":
            outputs = run_module(spec, {k: torch.from_numpy(v) for k, v in feeds[spec.name].items()})
            found |= {f"{spec.name}.{name}": sample(value.numpy()) for name, value in outputs.items()}
    return found


def gate_graphs(engine: OrtEngine, reference: GraphReference, graphs: dict[str, GraphInfo]) -> list[Gate]:
    """Gate 1; every graph by the bound of its own precision."""
    gates = []
    for graph, feed in reference.feeds.items():
        if graph not in graphs:
            continue
        got, errors = engine.run_graph(graph, feed), {}
        for name, want in reference.outputs[graph].items():
            scale = max(float(np.abs(want).max()), 1e-12)
            error = float(np.abs(want - got[name]).max())
            errors[name] = (error / scale if np.isfinite(got[name]).all() else float("inf"), error)
        worst = max(errors, key=lambda k: errors[k][0])
        detail = f"{worst}, max abs {errors[worst][1]:.2g}"
        gates.append(
            Gate(f"{graph} against torch", errors[worst][0], BOUNDS[graphs[graph].weights].graph, False, detail)
        )
    return gates


@torch.no_grad()
def gate_text(engine: OrtEngine, encoder: Any, prompts: list[str], exact: bool) -> Gate:
    """Text graph against torch: error of unit vectors, or the lowest cosine for int8 weights and fp16."""
    got, want = engine.encode_text(prompts), encoder.encode(prompts).numpy()
    if not exact:
        cosine = float((got * want).sum(1).min())
        return Gate("text against torch", cosine, TEXT_COSINE, True, f"{len(prompts)} prompts, lowest cosine")
    error = float(np.abs(got - want).max())
    return Gate("text against torch", error, TEXT_ERROR, False, f"{len(prompts)} prompts, max abs")


class ClipReference:
    """The torch model in clip mode over a growing list of frames; earlier frames enter by what they leave alone.

    It has the methods of a stream that a roll-out uses (:class:`ov2vss_runtime.bundle.rollout.Rolled`).
    """

    def __init__(self, model: OV2VSS, gap: int, text: npt.NDArray[np.float32]) -> None:
        self.model, self.gap = model, gap
        self.text = torch.from_numpy(text)
        self.reset()

    def reset(self) -> None:
        self.tokens: list[torch.Tensor] = []
        self.queries: list[list[torch.Tensor]] = []

    def _keep(self, frame: FrameFeatures) -> None:
        """Frames enter later ones by their tokens, and with a local memory by their queries."""
        self.tokens.append(frame.tokens)
        self.queries.append(frame.queries if self.model.memory is not None else [])

    @torch.no_grad()
    def encode(self, frame: npt.NDArray[np.uint8]) -> FrameFeatures:
        return self.model.encode(torch.from_numpy(frame).permute(2, 0, 1)[None])

    def set_last(self, frame: npt.NDArray[np.uint8]) -> None:
        self.distant = self.encode(frame)

    def advance(self, frame: npt.NDArray[np.uint8]) -> None:
        """Take the next frame into the past without asking what it shows."""
        self._keep(self.encode(frame))

    @torch.no_grad()
    def logits(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """``[N, H/8, W/8]`` of the next frame."""
        target = self.encode(frame)
        self._keep(target)
        indices = clip_indices(len(self.tokens) - 1, self.model.config.references, self.gap)
        references, past = indices[:-1], None
        if self.model.config.stcf:
            tokens, queries = ([kept[i] for i in references] for kept in (self.tokens, self.queries))
            past = self.model.past(tokens, queries, target.lattice)
        context = self.model.context(self.distant.tokens, self.distant.lattice)
        return self.model.predict(target, past, context, self.text).logits[0].numpy()


@dataclass(frozen=True)
class Truth:
    """What torch said of a frame: logits ``[N, h, w]``, and at the frame's size the labels and where the two best
    logits differ by more than a thousandth of the frame's logit range (None with a single class)."""

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.integer]
    clear: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, logits: npt.NDArray[np.float32], size: tuple[int, int]) -> Truth:
        full = upsample(torch.from_numpy(logits)[None], size)[0]
        labels = full.argmax(0).numpy().astype(np.uint16)
        if len(full) == 1:
            return cls(logits, labels, None)
        top = full.topk(2, dim=0).values
        return cls(logits, labels, (top[0] - top[1]).numpy() > 1e-3 * float(full.max() - full.min()))


def clip_rollout(
    model: OV2VSS, gap: int, embeddings: npt.NDArray[np.float32], frames: Sequence[npt.NDArray[np.uint8]]
) -> list[npt.NDArray[np.float32]]:
    """Logits ``[N, H/8, W/8]`` of every frame in clip mode; the distant frame changes once, the past ends once."""
    return list(rolled_logits(ClipReference(model, gap, embeddings), frames, "torch"))


@dataclass(frozen=True)
class Rollout:
    """Agreement of exported and torch label maps, per frame, and the largest relative error of the logits."""

    agreement: npt.NDArray[np.float64]
    clear_agreement: float
    """Over pixels whose two best logits differ by more than a thousandth of the frame's logit range."""
    error: float


def rollout(
    make_stream: Callable[[], Stream],
    trained: Sequence[npt.NDArray[np.float32] | Truth],
    frames: Sequence[npt.NDArray[np.uint8]],
) -> Rollout:
    """Stream ``frames`` (RGB, the model's size) and compare with :func:`clip_rollout` of the same frames, or with the
    :class:`Truth` that was made of it once for several streams."""
    stream = make_stream()
    agreement, clear, error = [], [], 0.0
    for frame, have, want in zip(frames, rolled_logits(stream, frames, "exported"), trained, strict=True):
        size = (frame.shape[0], frame.shape[1])
        truth = want if isinstance(want, Truth) else Truth.of(want, size)
        scale = max(float(np.abs(truth.logits).max()), 1e-12)
        error = max(error, float(np.abs(truth.logits - have).max()) / scale)
        same = label_map(have, size) == truth.labels
        agreement.append(same.mean())
        if truth.clear is not None:
            clear.append(same[truth.clear].mean() if truth.clear.any() else 1.0)
    return Rollout(np.asarray(agreement), float(np.mean(clear)) if clear else 1.0, error)


def label_maps(
    engine: OrtEngine, manifest: Manifest, embeddings: npt.NDArray[np.float32], frames: Sequence[npt.NDArray[np.uint8]]
) -> list[npt.NDArray[Any]]:
    """Label maps of a stream over frames that need not follow each other."""
    stream = stream_maker(engine, manifest, embeddings)()
    return [stream.step(frame).labels for frame in frames]


@dataclass(frozen=True)
class OnLabels:
    """Scores on labelled videos.

    Attributes:
        miou: 0..1.
        steady: share of pixels that keep their label along the flow from frame to frame, 0..1; None where no motion was
            found, as between pictures that do not follow each other.
    """

    miou: float
    steady: float | None = None


def labelled_scores(engine: Any, data: str, split: str, templates: tuple[str, ...], gap: int) -> OnLabels:
    """Scores on labelled videos, streamed, with the class names of the data set as words."""
    from ov2vss.data import open_videos
    from ov2vss.evaluate.evaluate import evaluate, make_protocol, predict_with
    from ov2vss.evaluate.temporal import TemporalTally, watched

    videos = open_videos(data, split)
    protocol = make_protocol(videos, "all", None, videos.unseen)
    embeddings = class_embeddings(engine.encode_text, protocol.vocabulary, templates)

    def make_stream() -> Stream:
        return Stream(engine, protocol.vocabulary, templates, gap, "farthest", embeddings=embeddings)

    moving = TemporalTally([videos.classes.names[k] for k in protocol.classes], rate=1.0)
    miou = evaluate(videos, protocol, watched(predict_with(make_stream), protocol, videos, moving), progress=True)[
        "miou"
    ]
    if miou is None:
        raise OV2VSSError(f"no labelled pixel in the split {split} of {data}", "choose another --split")
    return OnLabels(float(miou), moving.same / moving.sure if moving.sure else None)


def gate_rollout(result: Rollout, precision: str) -> list[Gate]:
    """Gate 2 from a roll-out."""
    worst, bounds = int(result.agreement.argmin()), BOUNDS[precision]
    return [
        Gate(
            "roll-out label agreement",
            float(result.agreement.mean()),
            bounds.agreement,
            True,
            f"{len(result.agreement)} frames, worst {result.agreement[worst]:.5f} at frame {worst}",
        ),
        Gate("roll-out agreement off near-ties", result.clear_agreement, bounds.clear, True),
        Gate("roll-out logits", result.error, bounds.logits, False, "relative to the frame's largest logit"),
    ]


def gate_miou(trained: OnLabels, exported: OnLabels, precision: str, data: str) -> Gate:
    """Gate 3: difference of mIoU in points on labelled videos. How steady both are is told beside it, without a bound:
    labels may agree with torch's as often and yet flicker."""
    points = 100 * abs(exported.miou - trained.miou)
    detail = f"{Path(data).name}: torch {100 * trained.miou:.2f}, exported {100 * exported.miou:.2f}"
    if trained.steady is not None and exported.steady is not None:
        detail += f"; steady along the flow: torch {100 * trained.steady:.2f} %, exported {100 * exported.steady:.2f} %"
    return Gate("mIoU difference in points", points, BOUNDS[precision].miou, False, detail)


def generated_frames(size: tuple[int, int], count: int) -> list[npt.NDArray[np.uint8]]:
    """Frames of the generated test clips at ``size``: what a bundle is verified on when no video is given."""
    videos = ShapesVideos("test")
    whole = len(videos.videos) * CLIP_FRAMES
    return [resize_frame(videos.frame(i % whole // CLIP_FRAMES, i % CLIP_FRAMES), size) for i in range(count)]


def video_frames(path: Path, size: tuple[int, int], count: int) -> list[npt.NDArray[np.uint8]]:
    """The first ``count`` frames of a video at ``size``."""
    frames = [resize_frame(f.rgb, size) for f in islice(VideoReader(path), count)]
    if len(frames) < min(count, RESET_AT + 1):
        raise OV2VSSError(f"{path} has {len(frames)} frames", f"verify with a video of at least {RESET_AT + 1}")
    return frames


def spread_frames(path: Path, size: tuple[int, int], count: int) -> list[npt.NDArray[np.uint8]]:
    """``count`` frames drawn from the first few thousand of a video, the same ones every time."""
    drawn: list[npt.NDArray[np.uint8]] = []
    chance = random.Random(0)
    for index, frame in enumerate(islice(VideoReader(path), 3000)):
        if len(drawn) < count:
            drawn.append(resize_frame(frame.rgb, size))
        elif (place := chance.randrange(index + 1)) < count:
            drawn[place] = resize_frame(frame.rgb, size)
    return drawn
