"""Shared fixtures: small models, short videos, and one really trained tiny run for the whole session.

Under ``pytest -n 2`` the run and its bundle are made once, by the process that comes first; each process computes with
one thread.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from filelock import FileLock

from ov2vss.model import OV2VSS, ModelConfig
from ov2vss.presets import PRESETS
from ov2vss_runtime.processors import available_threads

SCRIPTS = Path(sys.executable).parent
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the programs under test


def run_program(
    name: str, *args: str | Path, cwd: Path | None = None, timeout: int = 1500
) -> subprocess.CompletedProcess:
    """Run one of the four programs as a user would."""
    command = [str(SCRIPTS / name), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def write_video(
    path: Path,
    frames: list[np.ndarray],
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    audio: bool = False,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Encode RGB frames, with an optional tone as AAC; ``pts`` in units of ``time_base``."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=round(1 / time_base) if time_base < 1 else 25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        sound = container.add_stream("aac", rate=48000, layout="mono") if audio else None
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = (pts or range(len(frames)))[index], time_base
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
        if sound is not None:
            seconds = len(frames) * float(time_base)
            wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000)
            for start in range(0, len(wave), 1024):
                chunk = av.AudioFrame.from_ndarray(wave[None, start : start + 1024].astype(np.float32), "fltp", "mono")
                chunk.rate, chunk.pts = 48000, start
                for packet in sound.encode(chunk):
                    container.mux(packet)
            for packet in sound.encode(None):
                container.mux(packet)
    return path


def moving_frames(count: int, size: tuple[int, int] = (96, 160), seed: int = 0) -> list[np.ndarray]:
    """Frames of a smooth, slowly drifting picture with a bright square that moves."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (8, 12, 3)).astype(np.uint8)
    big = cv2.resize(coarse, (size[1] + count, size[0]), interpolation=cv2.INTER_CUBIC)
    frames = []
    for t in range(count):
        frame = big[:, t : t + size[1]].copy()
        x = (7 * t) % (size[1] - 24)
        frame[20:44, x : x + 24] = (230, 40, 40)
        frames.append(frame)
    return frames


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return PRESETS["tiny"].model


@pytest.fixture(scope="session")
def model(config: ModelConfig) -> OV2VSS:
    """A tiny model with random weights; every gate and norm away from its neutral initial value."""
    return random_model(config)


def shuffled(network: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """All weights away from their initial values, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def random_model(config: ModelConfig, seed: int = 0) -> OV2VSS:
    torch.manual_seed(seed)
    model = OV2VSS(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a CLIP architecture with a vision transformer and a text tower of a few thousand weights a layer."""
    import open_clip

    path = tmp_path_factory.mktemp("clip") / "small-clip.json"
    vision = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    path.write_text(json.dumps({"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    return path.stem


def clip_config(config: ModelConfig, small_clip: str) -> ModelConfig:
    """The tiny model with the small CLIP in the place of its own encoders."""
    values = {"image_encoder": "clip", "text_encoder": "clip", "clip_model": small_clip, "clip_pretrained": ""}
    return config.model_copy(update={**values, "clip_tokens": 24, "embed_dim": 64})


@dataclass(frozen=True)
class TrainedRun:
    """What ``ov2vss-train`` without arguments left behind."""

    folder: Path
    report: dict


KEPT = os.environ.get("OV2VSS_TEST_CACHE")
"""A folder in which the trained run and its bundle are kept from one session of pytest to the next. For work on other
parts: what training or export write today is then not tested. Delete its folders to make them again."""


def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: a process a core, as far as eight of them fit into memory and pay."""
    return min(available_threads(), 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In parallel the tests of the trained run come first: one process trains while the others do the rest."""
    if WORKER:
        items.sort(key=lambda item: not {"trained", "bundle"} & set(getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this session, or of all sessions (see :data:`KEPT`)."""
    session = tmp_path_factory.getbasetemp()
    folder = Path(KEPT) if KEPT else (session.parent if WORKER else session) / "shared"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[], Path]) -> Path:
    """The folder, copied from what the first process that asks for it makes; the others wait for that."""
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(make(), part).rename(folder)
    return folder


@pytest.fixture(scope="session")
def trained(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The tiny preset, trained in full by the program itself (a few minutes, once a session)."""

    def train() -> Path:
        cwd = tmp_path_factory.mktemp("train")
        done = run_program("ov2vss-train", "--json", cwd=cwd, timeout=3600)
        assert done.returncode == 0, done.stderr
        (cwd / "report.json").write_text(done.stdout.splitlines()[-1])
        return cwd

    folder = made_once(shared_folder / "train", train)
    report = json.loads((folder / "report.json").read_text())
    return TrainedRun(folder / report["checkpoint"], report)


@pytest.fixture(scope="session")
def bundle(trained: TrainedRun, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained tiny model as a bundle; a copy for each process, since tests add words to it."""

    def export() -> Path:
        out = tmp_path_factory.mktemp("export") / "shapes"
        card = out.with_name("card.md")
        card.write_text("## Limits\n\nKnows shapes only.\n")
        args = ("--precision", "fp32,fp16,int8", "--data", "shapes", "--split", "val", "--card", card)
        done = run_program("ov2vss-export", "--ckpt", trained.folder, "--out", out, *args)
        assert done.returncode == 0, done.stderr
        return out

    made = made_once(shared_folder / "bundle", export)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("bundle") / "shapes"))
