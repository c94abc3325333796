"""Write the vectors anew: ``python -m tests.vectors.write [--keep-bundle]``, a minute.

Only when the bundle format or the rules of a stream change, and said in the commit: other runtimes are held to them.

The bundle is a whole model of a few thousand random weights, exported as any other. The expected outputs are those of
the Python runtime on onnxruntime; the tests hold another engine, and the rules in numpy, to them.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from timm.models import register_model
from timm.models.resnet import BasicBlock, _create_resnet
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ov2vss import checkpoint
from ov2vss.model import ModelConfig
from ov2vss.presets import TrainConfig
from ov2vss.text import build_text_encoder
from ov2vss.text.encoders import WordVectors
from ov2vss_export.bundle_writer import export_bundle
from ov2vss_export.export_request import ExportRequest
from ov2vss_runtime.atomic_files import write_json
from ov2vss_runtime.bundle.bundle import MANIFEST, file_sha256
from ov2vss_runtime.bundle.text import word_rows
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.stream.preprocess import resize_frame
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames, random_model
from tests.vectors.replay import BUNDLE, CASES, EXPECTED, FOLDER, FRAMES, Played, play

SIZE, FRAME = (64, 96), (32, 56)
MODEL = ModelConfig(
    backbone="vectors_resnet",
    freeze_norm=False,
    width=16,
    regions=4,
    heads=4,
    dense_width=32,
    text_encoder="words",
    embed_dim=16,
    templates=("{}", "a photo of a {}."),
    cost_width=8,
    position_width=8,
    decoder_width=8,
    rfe_residual=True,
)
WORDS = ["red ball", "blue square", "green star", "yellow ring", "white cross", "black bar", "purple disc, circle"]
LOGITS, CONFIDENCE, EMBEDDINGS, TIE = 1e-4, 1e-4, 1e-5, 3e-4
"""Tolerances: logits and ties as a share of the largest logit of the frame, the others as they are."""
TEXTS = ["red ball", "RED  Ball", "a photo of a yellow rings.", "Rïng", "of", "", "star-shaped box", "ball " * 40]


@register_model
def vectors_resnet(pretrained: bool = False, **settings: Any) -> torch.nn.Module:
    """The smallest network with levels at strides 4, 8, 16 and 32."""
    shape = {"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (8, 12, 16, 20)}
    shape |= {"stem_type": "deep", "stem_width": 4}
    return _create_resnet("vectors_resnet", pretrained, **(shape | settings))


def write_bundle(folder: Path) -> None:
    """Export a random model; its tokenizer becomes one of the kinds that real bundles have."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        model = random_model(MODEL, seed=3)
        config = TrainConfig(preset="custom", model=MODEL, size=SIZE, crop=SIZE)
        encoder = build_text_encoder(MODEL)
        facts = checkpoint.RunConfig(train=config, classes=WORDS, text_encoder_sha256=encoder.identity())
        run.mkdir()
        checkpoint.save(run, 0, model.trained_state(), {}, {"untrained": True})
        write_json(run / "config.json", facts.model_dump(mode="json"))
        words = Vocabulary.from_lines(WORDS, "the vectors' words")
        export_bundle(
            ExportRequest(checkpoint.find(run), words, Path(scratch) / "vectors", SIZE, rollout=16, decoder_parts=False)
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(scratch) / "vectors", folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {w: i + 2 for i, w in enumerate(WordVectors.WORDS.split())}
    vocabulary["##s"] = vocabulary.pop("of")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.enable_truncation(encoder.context_length)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    manifest["tokenizer"]["sha256"] = file_sha256(folder / "tokenizer.json")
    manifest["cut"]["threshold"] = 0.5  # of this network: 0.14 within a shot, 1.1 between two
    # What is kept for --verify-only is large, and not for this.
    save_file({"nothing": np.zeros(1, np.float32)}, folder / "parity.safetensors")
    manifest["parity"]["sha256"] = file_sha256(folder / "parity.safetensors")
    write_json(folder / MANIFEST, manifest)


def inputs() -> dict[str, np.ndarray]:
    """A shot of twelve frames, another of four, and frames of other sizes; embeddings of 260 classes."""
    arrays = {f"a{k}": frame for k, frame in enumerate(moving_frames(12, FRAME, seed=0))}
    arrays |= {f"b{k}": frame for k, frame in enumerate(moving_frames(4, FRAME, seed=5))}
    arrays["large"] = cv2.resize(arrays["a3"], (211, 150), interpolation=cv2.INTER_CUBIC)
    arrays["odd"] = np.ascontiguousarray(arrays["a4"][:27, :47])
    many = np.random.RandomState(0).standard_normal((260, MODEL.embed_dim)).astype(np.float32)
    arrays["many"] = many / np.linalg.norm(many, axis=1, keepdims=True)
    return arrays


def calls(names: str) -> list[dict[str, Any]]:
    """``step`` for every frame named, a tenth of a second apart."""
    return [{"call": "step", "frame": name, "time": round(k / 10, 1)} for k, name in enumerate(names.split())]


def case_list() -> list[dict[str, Any]]:
    shot = "a0 a1 a2 a3 a4 a5 a6 a7"
    eight, default = calls(shot), "; ".join(WORDS)
    vocabulary = "set_vocabulary"
    cases: list[dict[str, Any]] = [
        {"name": "first", "options": {"confidence": True}, "calls": eight},
        {"name": "gap", "gap": 1, "calls": calls("a0 a1 a2 a3")},
        {
            "name": "farthest",
            "distant": "farthest",
            "calls": [{"call": "set_last", "frame": "a11", "time": 0.7}, *eight],
        },
        {"name": "reservoir", "distant": "reservoir", "options": {"seed": 7}, "calls": eight},
        {"name": "cuts", "options": {"reset_on_cut": True}, "calls": calls("a0 a1 a2 b0 b1 a3 a4")},
        {
            "name": "words changed on the way",
            "words": "red ball; blue square",
            "calls": [
                *eight[:3],
                {"call": vocabulary, "words": "yellow ring; star; disc, circle; bar; box"},
                *eight[3:5],
                {"call": vocabulary, "words": "cross"},
                eight[5],
                {"call": vocabulary, "words": "red ball; blue square"},
                *eight[6:],
            ],
        },
        {
            "name": "as many classes as heads",
            "words": "red ball; blue square; green star; ring",
            "calls": [
                *eight[:4],
                {"call": vocabulary, "words": "red ball; blue square; star; ring; white cross; bar; disc; box"},
                *eight[4:6],
                {"call": vocabulary, "words": "red ball; blue square; star"},
                *eight[6:],
            ],
        },
        {"name": "candidates", "options": {"top_classes": 3}, "calls": calls(shot + " a8 a9 a10")},
        {"name": "unknown", "options": {"unknown_below": 0.15}, "calls": eight[:4]},
        {"name": "background", "options": {"background": ["white cross", "disc"]}, "calls": eight[:4]},
        {"name": "the best synonym counts", "options": {"synonyms": "max"}, "calls": eight[:4]},
        {
            "name": "advance and hold",
            "calls": [
                {**eight[0], "call": "advance"},
                eight[1],
                {**eight[2], "call": "hold"},
                {**eight[3], "call": "hold"},
                *eight[4:6],
            ],
        },
        {"name": "restart", "calls": [*eight[:5], {"call": "restart"}, *eight[5:]]},
        {"name": "reset", "calls": [*eight[:5], {"call": "reset"}, *eight[5:]]},
        {
            "name": "a part of a longer video",
            "distant": "farthest",
            "calls": [
                {"call": "set_first", "frame": "a0", "time": 0.0},
                {"call": "set_last", "frame": "a11", "time": 0.7},
                *({**call, "call": "advance"} for call in calls(shot)[2:5]),
                *eight[5:],
            ],
        },
        {"name": "save and load", "calls": [*eight[:5], {"call": "save_and_load"}, *eight[5:]]},
        {"name": "frames of other sizes", "calls": calls("a0 large odd a5")},
        {
            "name": "embeddings of 260 classes",
            "words": "; ".join(f"class {k}" for k in range(260)),
            "embeddings": "many",
            "calls": eight[:2],
        },
    ]
    # Copies: what is expected of a call is written into it.
    return [copy.deepcopy({"name": case["name"], "words": default} | case) for case in cases]


def unsure(played: Played, below: float) -> np.ndarray:
    """Flat indices of the pixels whose label depends on more digits than two runtimes share."""
    result = played.result
    logits = result.logits
    assert logits is not None
    size = result.labels.shape
    large = F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)[0]
    best = large.topk(min(2, len(large)), 0).values
    close = best[0] - best[-1] < TIE * float(np.abs(logits).max()) if len(large) > 1 else torch.zeros(size) > 0
    if below:
        close |= (large.softmax(0).amax(0) - below).abs() < CONFIDENCE
    return np.flatnonzero(close.numpy()).astype(np.int32)


def write(folder: Path = FOLDER, bundle: bool = True) -> None:
    """Bundle, unless it stays as it is, inputs and expected outputs."""
    if bundle:
        write_bundle(folder / BUNDLE)
    arrays = inputs()
    save_file(arrays, folder / FRAMES)
    segmenter = Segmenter.load(folder / BUNDLE, threads=1)
    expected: dict[str, np.ndarray] = {}
    names: dict[tuple[Any, ...], str] = {}

    def keep(name: str, array: np.ndarray) -> str:
        """Name of the tensor that holds an array: many are the same."""
        known = names.setdefault((array.tobytes(), array.shape, array.dtype), name)
        expected[known] = array
        return known

    cases = case_list()
    for case in cases:
        found = list(play(segmenter, case, arrays))
        for played in found:
            key, result = f"{case['name']}/{played.number}", played.result
            facts = {"index": result.index, "held": result.held, "age": result.age, "cut": result.cut}
            played.call["expect"] = facts | {"labels": keep(f"{key}/labels", result.labels)}
            if len(ties := unsure(played, case.get("options", {}).get("unknown_below", 0))):
                played.call["expect"]["unsure"] = keep(f"{key}/unsure", ties)
            if played is found[-1] and result.logits is not None and len(result.logits) < 10:
                played.call["expect"]["logits"] = keep(f"{key}/logits", result.logits)
                if result.confidence is not None:
                    played.call["expect"]["confidence"] = keep(f"{key}/confidence", result.confidence)
            if case.get("options", {}).get("top_classes"):
                assert result.classes is not None
                played.call["expect"]["classes"] = result.classes.tolist()
    for name in ("a0", "large", "odd"):
        expected[f"resized/{name}"] = resize_frame(arrays[name], SIZE)
    rows, _ = word_rows(Vocabulary.parse("; ".join(WORDS)), "average", ())
    expected["embeddings"] = segmenter.stream(None, "; ".join(WORDS)).embeddings
    assert len(rows) == len(WORDS)
    tokenizer = Tokenizer.from_file(str(folder / BUNDLE / "tokenizer.json"))
    tokenizer.no_padding()
    save_file(expected, folder / EXPECTED)
    tolerance = {"logits": LOGITS, "confidence": CONFIDENCE, "embeddings": EMBEDDINGS}
    texts = [{"text": text, "tokens": tokenizer.encode(text).ids} for text in TEXTS]
    content = {"bundle": BUNDLE, "tolerance": tolerance, "words": "; ".join(WORDS), "texts": texts, "cases": cases}
    # One line a call: a diff then shows what changed.
    (folder / CASES).write_text(_lines(content))


def _lines(content: dict[str, Any]) -> str:
    cases = ",\n".join(
        "    {"
        + ", ".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in case.items() if k != "calls")
        + ', "calls": [\n'
        + ",\n".join(f"      {json.dumps(call, ensure_ascii=False)}" for call in case["calls"])
        + "\n    ]}"
        for case in content["cases"]
    )
    head = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in content.items() if k != "cases"]
    return "{\n" + ",\n".join(head) + ',\n  "cases": [\n' + cases + "\n  ]\n}\n"


if __name__ == "__main__":
    write(bundle="--keep-bundle" not in sys.argv)
