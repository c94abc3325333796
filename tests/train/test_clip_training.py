"""Training, resuming, evaluating and exporting a model whose CLIP is frozen and not in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ov2vss import checkpoint
from ov2vss.clip import ClipSource, build_clip
from ov2vss.errors import OV2VSSError
from ov2vss.model import OV2VSS
from ov2vss.presets import PRESETS, TrainConfig, configure
from ov2vss.train.loop import Trainer
from ov2vss.train.validate import validate
from tests.conftest import TrainedRun, run_program, shuffled
from tests.train.test_training import FAST


def clip_run(small_clip: str, weights: str) -> TrainConfig:
    settings = ["model.image_encoder=clip", "model.text_encoder=clip", f"model.clip_model={small_clip}"]
    settings += ["model.clip_pretrained=", "model.clip_tokens=24", "gamma=0", "iterations=4", *FAST]
    return configure("tiny", settings, clip_weights=weights)


@pytest.fixture(scope="module")
def weights(small_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "clip.safetensors"
    state = shuffled(build_clip(small_clip, "")).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    return file


@pytest.fixture(scope="module")
def clip_checkpoint(small_clip: str, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    out = tmp_path_factory.mktemp("run") / "run"
    trainer = Trainer(clip_run(small_clip, str(weights)), out)
    trainer.fit()
    frozen = load_file(weights)
    held = trainer.raw_model.image_encoder.visual.state_dict()
    assert all(torch.equal(v, frozen[f"visual.{k}"]) for k, v in held.items()), "training changed the frozen CLIP"
    return checkpoint.find(out)


def test_clip_is_not_in_the_checkpoint_but_its_identity_is(clip_checkpoint: checkpoint.Checkpoint) -> None:
    stored = clip_checkpoint.weights()
    assert not [k for k in stored if k.startswith("image_encoder.")]
    assert len([k for k in stored if k.startswith("text_refinement.")]) > 0
    assert len(clip_checkpoint.run.image_encoder_sha256) == 64
    assert clip_checkpoint.weights_file.stat().st_size < 3e6


def test_a_checkpoint_takes_its_own_clip_and_no_other(
    clip_checkpoint: checkpoint.Checkpoint, small_clip: str, weights: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "moved.safetensors"
    elsewhere.write_bytes(weights.read_bytes())
    model = clip_checkpoint.build(ClipSource(str(elsewhere)))
    assert torch.equal(model.image_encoder.visual.proj, load_file(weights)["visual.proj"])
    clip_checkpoint.text_encoder(ClipSource(str(elsewhere)))
    other = tmp_path / "other.safetensors"
    state = shuffled(build_clip(small_clip, ""), seed=2).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, other)
    with pytest.raises(OV2VSSError, match=r"image encoder's weights are not those .* --clip-weights FILE"):
        clip_checkpoint.build(ClipSource(str(other)))
    with pytest.raises(OV2VSSError, match=r"text encoder 'clip' is not the one .* --clip-weights FILE"):
        clip_checkpoint.text_encoder(ClipSource(str(other)))


def test_training_with_clip_resumes_bit_for_bit(small_clip: str, weights: Path, tmp_path: Path) -> None:
    config = clip_run(small_clip, str(weights))
    Trainer(config, tmp_path / "whole").fit()

    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, tmp_path / "parts").fit(stop)
    Trainer(config, tmp_path / "parts", resume=True).fit()
    one, two = (checkpoint.find(tmp_path / n, "last").weights() for n in ("whole", "parts"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_resume_refuses_another_clip(small_clip: str, weights: Path, tmp_path: Path) -> None:
    """The file has the same name and other weights."""
    file = tmp_path / "clip.safetensors"
    file.write_bytes(weights.read_bytes())
    config = clip_run(small_clip, str(file))

    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, tmp_path / "run").fit(stop)
    state = shuffled(build_clip(small_clip, ""), seed=2).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    with pytest.raises(OV2VSSError, match="other classes or other weights of a frozen encoder"):
        Trainer(config, tmp_path / "run", resume=True)


def test_clip_weights_for_a_model_without_clip_are_refused(tmp_path: Path, trained: TrainedRun) -> None:
    file = tmp_path / "clip.safetensors"
    file.touch()
    done = run_program("ov2vss-train", "--clip-weights", file, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no CLIP to give weights to" in done.stderr
    done = run_program("ov2vss-eval", "--ckpt", trained.folder, "--data", "shapes", "--clip-weights", file)
    assert done.returncode == 1
    assert "leave out --clip-weights" in done.stderr


def test_streaming_equals_clip_mode_with_clip(small_clip: str) -> None:
    """The stream of the torch engine against ``forward`` on whole clips, for a frame that is not square."""
    from ov2vss.data.clips import clip_indices
    from ov2vss.text import build_text_encoder
    from ov2vss.torch_engine import TorchEngine
    from ov2vss_runtime.bundle.vocabulary import Vocabulary
    from ov2vss_runtime.stream.stream import Stream
    from tests.conftest import clip_config, moving_frames, random_model

    config = clip_config(PRESETS["tiny"].model, small_clip)
    model = random_model(config)
    encoder = build_text_encoder(config, ClipSource("random"))
    words = Vocabulary.parse("road; car; sky")
    frames = moving_frames(8)
    stream = Stream(TorchEngine(model, (96, 160), encoder), words, config.prompts, 2, "farthest")
    stream.set_last(frames[7], 7.0)
    text = torch.from_numpy(stream.embeddings)
    tensors = [torch.from_numpy(f).permute(2, 0, 1)[None] for f in frames]
    for t, frame in enumerate(frames):
        got = stream.logits(frame, float(t))
        clip = torch.stack([tensors[i] for i in clip_indices(t, 3, 2)], dim=1)
        distant = tensors[7] if 7 - t > t else tensors[0]
        with torch.no_grad():
            expected = model(clip, distant, text).logits[0].numpy()
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max(), t


@pytest.mark.whole
def test_a_model_with_clip_is_exported_and_verified(
    clip_checkpoint: checkpoint.Checkpoint, weights: Path, tmp_path: Path
) -> None:
    from ov2vss_export.bundle_writer import export_bundle
    from ov2vss_export.export_request import ExportRequest
    from ov2vss_runtime.bundle.bundle import Bundle
    from ov2vss_runtime.bundle.vocabulary import Vocabulary

    words = Vocabulary.from_lines(clip_checkpoint.run.classes, "run")
    request = ExportRequest(
        clip_checkpoint,
        words,
        tmp_path / "bundle",
        (96, 160),
        ("fp32", "fp16"),
        allow_parity_failure=True,
        decoder_parts=False,
    )
    gates = export_bundle(request)
    assert list(gates) == ["fp32", "fp16"]
    assert all(gate.passed for gate in gates["fp32"])
    # Untrained, it calls nearly every pixel a tie; its graphs must be right all the same.
    assert all(gate.passed for gate in gates["fp16"] if "agreement" not in gate.name)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.source["image_encoder_sha256"] == clip_checkpoint.run.image_encoder_sha256


def test_validation_of_a_model_with_clip(clip_checkpoint: checkpoint.Checkpoint) -> None:
    run = clip_checkpoint.run
    scores = validate(clip_checkpoint.build(), clip_checkpoint.text_encoder(), run.train, run, "val")
    present = [iou for iou in scores["per_class"].values() if iou is not None]
    assert scores["miou"] == pytest.approx(sum(present) / len(present))
    assert len(present) >= 2
    assert scores["frames"] == 160


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ov2vss-r101", "ov2vss-pvt-b2"])
def test_paper_presets_build_and_step_at_full_size(preset: str, tmp_path: Path) -> None:
    """One step of the paper's model, ViT-B/16 with QuickGELU and 80 templates, crops of 480; random weights."""
    from tests.train.test_data import write_folder

    folder = tmp_path / "set"
    folder.mkdir()
    data = write_folder(folder, {"a": 12}, classes=None)
    settings = ["iterations=1", "batch=1", "backbone_weights=none", "workers=0", "validate_every=0"]
    config = configure(preset, settings, data=str(data), clip_weights="random")
    trainer = Trainer(config, tmp_path / "run")
    model: OV2VSS = trainer.raw_model
    assert "QuickGELU" in str(model.image_encoder)
    assert trainer.vocabulary.canonical.shape == (80, 512)
    assert trainer.trained == list(range(80))
    item = trainer.datasets[False][0]
    assert item["clip"].shape == (4, 3, 480, 480)
    dense = model.encode(item["clip"][-1:]).dense
    assert dense.shape == (1, 512, 24, 24)
    assert np.allclose(dense.detach().norm(dim=1), 1, atol=1e-4)
    before = {k: v.clone() for k, v in model.trained_state().items()}
    trainer.fit()
    after = model.trained_state()
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    for part in ("backbone.", "stcf.", "rfe.", "region_context.", "text_refinement.", "cost.", "decoder.", "aux_head."):
        assert any(k.startswith(part) for k in moved), part
