"""What a stream is compared with: the scheme of the authors' code, and an image method, from the same modules.

Per output frame the authors' code runs the backbone on five frames (the clip's four and the distant one), the image
encoder on four, STCF with its affinities at full resolution, and the decoder, text refinement included, on all four
frames of the clip, of which only the target's output is used. The image method is the same backbone, image encoder and
decoder on single frames: the levels joined by one convolution, no past, no distant frame.

Both decode with the same graph, engine and chunks of classes as the stream, so that only the scheme differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ov2vss.model
from ov2vss import checkpoint
from ov2vss.data.clips import clip_indices
from ov2vss.model import OV2VSS
from ov2vss.model.config import STRIDES
from ov2vss.model.pooling import Grid, pool_tokens, resize_average
from ov2vss.model.stcf import RecursionStep, SpatialTemporalFusion
from ov2vss_export.graphs import GraphSpec
from ov2vss_export.onnx_export import export_graph, save_onnx
from ov2vss_runtime.engines.engine import FrameFeatures
from ov2vss_runtime.engines.onnxruntime import OrtEngine
from ov2vss_runtime.stream.label_map import label_map
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.timing import Stopwatch

LEVELS = tuple(f"u_s{s}" for s in STRIDES)


def explicit_link(step: RecursionStep, levels: list[Tensor], past: Tensor) -> Tensor:
    """D_k by Eqs. 3 and 4 as written: queries, affinities ``HW x M`` and their products at full resolution."""
    pooled = []
    for i, (u, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        query = (u.flatten(2).transpose(1, 2) @ step.query.weight[i] + step.query.bias[i]) * step.scale
        key = past[:, i] @ step.key.weight[i] + step.key.bias[i]
        value = past[:, i] @ step.value.weight[i] + step.value.bias[i]
        n = (query @ key.transpose(1, 2)) @ value / past.shape[2]
        pooled.append(pool_tokens(n.transpose(1, 2).unflatten(2, u.shape[-2:]), stride))
    return step.mix(torch.stack(pooled, 1), (levels[-1].shape[-2], levels[-1].shape[-1]))


def pooled_tokens(levels: list[Tensor]) -> Tensor:
    """Projected levels -> ``[B, 4, M, C]``."""
    return torch.stack([pool_tokens(u, s) for u, s in zip(levels, STRIDES, strict=True)], 1)


def explicit_fusion(stcf: SpatialTemporalFusion, clip: list[list[Tensor]]) -> Tensor:
    """O_t of a clip of projected levels, references first."""
    lattice = (clip[0][-1].shape[-2], clip[0][-1].shape[-1])
    past = stcf.first(pooled_tokens(clip[0]), lattice)
    for step, levels in zip(stcf.steps, clip[1:-1], strict=True):
        past = explicit_link(step, levels, past)
    return stcf.fuse(stcf.target_queries(clip[-1][1:]), past)


def separate(model: OV2VSS) -> bool:
    """Whether the image encoder is a network of its own (CLIP) and not a head on the backbone."""
    return getattr(model.image_encoder, "frozen", False)


class BackbonePass(nn.Module):
    """``frame`` uint8 [1, H, W, 3] -> the four projected levels; and ``dense``, where that is a head on them."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        image, model = frame.to(torch.float32).permute(0, 3, 1, 2) / 255, self.model
        levels = model.backbone(image)
        projected = [project(u) for project, u in zip(model.project, levels, strict=True)]
        dense = () if separate(model) else (model.image_encoder(image, levels).squeeze(0),)
        return *projected, *dense


class ImageEncoderPass(nn.Module):
    """``frame`` -> ``dense`` [D, hc, wc] of a separate image encoder."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> Tensor:
        image = frame.to(torch.float32).permute(0, 3, 1, 2) / 255
        return self.model.image_encoder(image, []).squeeze(0)


class FusionPass(nn.Module):
    """Levels of the clip, then of the distant frame -> O^_t [1, C, H/8, W/8]."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, *levels: Tensor) -> Tensor:
        frames = [list(levels[i : i + 4]) for i in range(0, len(levels), 4)]
        *clip, distant = frames
        lattice: Grid = (distant[-1].shape[-2], distant[-1].shape[-1])
        context = self.model.context(pooled_tokens(distant), lattice)
        return self.model.rfe(explicit_fusion(self.model.stcf, clip), context)


class GuidancePass(nn.Module):
    """What a frame's decoder pass needs beside the words: O^_t, ``u_s4`` and ``dense`` -> guidance, text memory."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        self.model = model

    def forward(self, o_hat: Tensor, u_s4: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        position = model.position(resize_average(u_s4, dense.shape[-2:]))
        guidance = model.decoder.guidance(o_hat, model.cost.shared(position))
        keys, values = model.text_refinement.memory(dense[None])
        return guidance.squeeze(0), torch.cat([keys, values])


class ImageMethod(nn.Module):
    """``frame`` -> guidance, dense, text memory, without any other frame."""

    def __init__(self, model: OV2VSS) -> None:
        super().__init__()
        config = model.config.model_copy(update={"stcf": False, "rfe": False})
        torch.manual_seed(0)
        self.model = OV2VSS(config).eval()
        self.model.load_state_dict(model.state_dict(), strict=False)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        features = model.encode(frame.to(torch.float32).permute(0, 3, 1, 2))
        guidance, _ = model.step(features, None, None)
        keys, values = model.text_refinement.memory(features.dense)
        return guidance.squeeze(0), features.dense.squeeze(0), torch.cat([keys, values])


@torch.inference_mode()
def write_graphs(ckpt: str, size: Grid, cache: Path) -> Path:
    """The graphs of both schemes for a checkpoint, exported once into a folder of ``cache``."""
    found = checkpoint.find(ckpt)
    sources = [Path(__file__), *sorted(Path(ov2vss.model.__file__).parent.glob("*.py"))]
    made_of = b"".join(path.read_bytes() for path in (*sources, found.weights_file)) + repr(size).encode()
    folder = cache / f"reference-{hashlib.sha256(made_of).hexdigest()[:12]}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model = found.build()
    frame = torch.zeros(1, *size, 3, dtype=torch.uint8)
    *levels, dense = [*BackbonePass(model)(frame), *([ImageEncoderPass(model)(frame)] if separate(model) else [])]
    names = [f"{level}_{k}" for k in range(model.config.references + 2) for level in LEVELS]
    # Copies: the exporter takes one tensor given twice for one input.
    fusion = {name: levels[k % len(LEVELS)].clone() for k, name in enumerate(names)}
    o_hat = FusionPass(model)(*fusion.values())
    guided = {"o_hat": o_hat, "u_s4": levels[0], "dense": dense}
    specs = [
        GraphSpec(
            "backbone", BackbonePass(model), {"frame": frame}, [*LEVELS, *([] if separate(model) else ["dense"])], {}
        ),
        GraphSpec("fusion", FusionPass(model), fusion, ["o_hat"], {}),
        GraphSpec("guidance", GuidancePass(model), guided, ["guidance", "text_memory"], {}),
        GraphSpec("image", ImageMethod(model), {"frame": frame}, ["guidance", "dense", "text_memory"], {}),
    ]
    if separate(model):
        specs.append(GraphSpec("image_encoder", ImageEncoderPass(model), {"frame": frame}, ["dense"], {}))
    for spec in specs:
        save_onnx(export_graph(spec), folder / f"{spec.name}.onnx")
    (folder / "done").touch()
    return folder


class Scheme:
    """Labels a video frame by frame with :meth:`step`, and times its stages.

    Args:
        size: (H, W) of the network.
        threads: of the label map kernel.
    """

    def __init__(self, size: Grid, threads: int) -> None:
        self.size, self.threads, self.stages = size, threads, Stopwatch()

    def step(self, frame: np.ndarray) -> np.ndarray:
        """Label map of an RGB frame ``[h, w, 3]``."""
        with self.stages("preprocess"):
            resized = np.ascontiguousarray(resize_frame(frame, self.size))
        logits = self.logits(resized)
        with self.stages("labels"):
            return label_map(logits, frame.shape[:2], self.threads)

    def logits(self, frame: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class History:
    """The frames of a video so far that a clip can still reach."""

    def __init__(self, references: int, gap: int) -> None:
        self.references, self.gap, self.frames = references, gap, []

    def clip(self, frame: np.ndarray) -> list[np.ndarray]:
        """References oldest first, the frame itself, and the first frame as the distant one."""
        self.frames.append(frame)
        now = len(self.frames) - 1
        found = [self.frames[k] for k in clip_indices(now, self.references, self.gap)]
        if (old := now - self.references * self.gap) > 0:
            self.frames[old] = None
        return [*found, self.frames[0]]


class AuthorsScheme(Scheme):
    """On ONNX Runtime, with a bundle's engine for the decoder."""

    def __init__(self, engine: OrtEngine, folder: Path, embeddings: np.ndarray) -> None:
        super().__init__(engine.size, engine.threads)
        self.engine, self.embeddings = engine, embeddings
        self.history = History(engine.bundle.manifest.references, engine.bundle.manifest.gap)
        self.run = graph_runner(engine, folder)

    def logits(self, frame: np.ndarray) -> np.ndarray:
        clip = self.history.clip(frame)
        with self.stages("backbone"):
            levels = [self.run("backbone", {"frame": self.engine.upload(f[None])}) for f in clip]
            dense = [found.pop("dense", None) for found in levels[:-1]]
            if dense[0] is None:
                dense = [self.run("image_encoder", {"frame": self.engine.upload(f[None])})["dense"] for f in clip[:-1]]
        with self.stages("step"):
            feed = {f"{name}_{k}": found[name] for k, found in enumerate(levels) for name in LEVELS}
            o_hat = self.run("fusion", feed)["o_hat"]
        logits = np.empty(0)
        with self.stages("decoder"):
            for found, features in zip(levels, dense, strict=False):
                guided = self.run("guidance", {"o_hat": o_hat, "u_s4": found["u_s4"], "dense": features})
                payload = {"dense": features, "text_memory": guided["text_memory"]}
                logits = self.engine.decode(
                    FrameFeatures(None, payload), {"guidance": guided["guidance"]}, self.embeddings
                )
        return logits


class PerFrame(Scheme):
    """The image method on ONNX Runtime. Its joining convolution is untrained: its labels mean nothing."""

    def __init__(self, engine: OrtEngine, folder: Path, embeddings: np.ndarray) -> None:
        super().__init__(engine.size, engine.threads)
        self.engine, self.embeddings, self.run = engine, embeddings, graph_runner(engine, folder)

    def logits(self, frame: np.ndarray) -> np.ndarray:
        with self.stages("backbone"):
            found = self.run("image", {"frame": self.engine.upload(frame[None])})
        with self.stages("decoder"):
            guidance = found.pop("guidance")
            return self.engine.decode(FrameFeatures(None, found), {"guidance": guidance}, self.embeddings)


class TorchScheme(Scheme):
    """The authors' scheme in torch, as it is written, with the untouched model."""

    def __init__(self, model: OV2VSS, size: Grid, threads: int, embeddings: np.ndarray) -> None:
        super().__init__(size, threads)
        self.model, self.text = model, torch.from_numpy(embeddings)
        self.history = History(model.config.references, model.config.gap)
        self.backbone, self.image_encoder = BackbonePass(model), ImageEncoderPass(model)
        self.fusion, self.guidance = FusionPass(model), GuidancePass(model)

    @torch.inference_mode()
    def logits(self, frame: np.ndarray) -> np.ndarray:
        clip = [torch.from_numpy(f)[None] for f in self.history.clip(frame)]
        with self.stages("backbone"):
            levels = [self.backbone(f) for f in clip]
            dense = [self.image_encoder(f) for f in clip[:-1]] if separate(self.model) else [u[4] for u in levels[:-1]]
        with self.stages("step"):
            o_hat = self.fusion(*(u for found in levels for u in found[:4]))
        with self.stages("decoder"):
            for found, features in zip(levels, dense, strict=False):
                guidance, memory = self.guidance(o_hat, found[0], features)
                logits = self.model.decode(guidance[None], features[None], (memory[:1], memory[1:]), self.text)
        return logits[0].numpy()


def graph_runner(engine: OrtEngine, folder: Path) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Runs a graph of ``folder`` as the engine runs its own: same threads, OrtValues in and out."""
    sessions: dict[str, Any] = {}

    def run(graph: str, feed: dict[str, Any]) -> dict[str, Any]:
        if graph not in sessions:
            sessions[graph] = engine.open_session(folder / f"{graph}.onnx")
        return engine.run_session(sessions[graph], feed)

    return run
