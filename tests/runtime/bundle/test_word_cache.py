"""Words of a CLIP are encoded once and kept, each by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime import Segmenter
from ov2vss_runtime.bundle import word_cache
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.bundle.word_cache import WordCache
from tests.hand_made import HandMade

CLIP = {"clip": {"model": "hand-made", "tag": "x", "sha256": "0" * 64}}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(word_cache, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    return tmp_path / "cache" / "words"


class Encoder:
    """Counts what it encodes; batches of other sizes give other last bits, as on a real machine."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        rows = np.stack([np.random.RandomState(len(t) + 7 * ord(t[-1])).standard_normal(8) for t in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True) * (1 + 1e-7 * len(texts))).astype(np.float32)


def test_a_word_is_encoded_once_and_has_the_same_bits_in_any_list() -> None:
    encoder = Encoder()
    cache = WordCache(encoder, ("a {}", "the {}"), 8, ("graph", "tokenizer"))
    first = cache.embeddings(Vocabulary.parse("road; sky, heaven; car"))
    assert len(encoder.seen) == 8
    again = WordCache(encoder, ("a {}", "the {}"), 8, ("graph", "tokenizer"))
    second = again.embeddings(Vocabulary.parse("car; dog; road"))
    assert encoder.seen[8:] == ["a dog", "the dog"]
    assert np.array_equal(second[[2, 0]], first[[0, 2]])
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("templates", "key"), [(("a {}",), ("graph", "tokenizer")), (("a {}", "the {}"), ("other", "tokenizer"))]
)
def test_other_sentences_or_another_text_graph_have_words_of_their_own(templates: tuple, key: tuple) -> None:
    words = Vocabulary.parse("road; sky")
    WordCache(Encoder(), ("a {}", "the {}"), 8, ("graph", "tokenizer")).embeddings(words)
    encoder = Encoder()
    WordCache(encoder, templates, 8, key).embeddings(words)
    assert len(encoder.seen) == 2 * len(templates)


def test_damaged_files_are_made_again(cache_folder: Path) -> None:
    words = Vocabulary.parse("road; sky; car")
    made = WordCache(Encoder(), ("{}",), 8, ("graph",)).embeddings(words)
    one, two, _ = sorted(cache_folder.rglob("*.f32"))
    one.write_bytes(one.read_bytes()[:-1])
    two.write_bytes(np.full(8, np.nan, np.float32).tobytes())
    encoder = Encoder()
    assert np.array_equal(WordCache(encoder, ("{}",), 8, ("graph",)).embeddings(words), made)
    assert len(encoder.seen) == 2
    assert not list(cache_folder.rglob("*.part"))


def test_a_cache_that_cannot_be_written_to_changes_nothing(cache_folder: Path) -> None:
    cache_folder.parent.mkdir()
    cache_folder.write_text("no folder")
    found = WordCache(Encoder(), ("{}",), 8, ("graph",)).embeddings(Vocabulary.parse("road; sky"))
    assert found.shape == (2, 8)


def test_streams_of_a_clip_keep_words_and_others_do_not(tmp_path: Path, cache_folder: Path) -> None:
    for name, source in (("clip", CLIP), ("other", {})):
        folder = HandMade().write(tmp_path / name, source=source)
        for _ in range(2):
            segmenter = Segmenter.load(folder)
            encoded: list[str] = []
            encode = segmenter.engine.encode_new
            segmenter.engine.encode_new = lambda texts, encode=encode, seen=encoded: seen.extend(texts) or encode(texts)
            stream = segmenter.stream(None, "car; dog")
            assert np.allclose(stream.embeddings, HandMade.embeddings(["car", "dog"]), atol=1e-6)
        assert encoded == ([] if name == "clip" else ["car", "dog"])
    assert len(list(cache_folder.rglob("*.f32"))) == 2
