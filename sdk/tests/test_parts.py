"""Parts of libov2vss against what they are written after: cv2, Hugging Face's tokenizers, Python itself."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.errors import VocabularyError
from ov2vss_runtime.stream.preprocess import resize_frame

from .library import BUILD, BUNDLE

MANY = int(os.environ.get("OV2VSS_SDK_MANY", "1"))
"""Repeats the random comparisons so many times: 10 for the figures of the documents."""


@pytest.fixture(scope="module")
def probe() -> ctypes.CDLL:
    if not (BUILD / "libov2vss_probe.so").exists():
        pytest.skip("built without OV2VSS_TESTS")
    library = ctypes.CDLL(str(BUILD / "libov2vss_probe.so"))
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    library.probe_resize.argtypes = [
        pointer,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_ssize_t,
        pointer,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.probe_tokenizer.restype, library.probe_tokenizer.argtypes = pointer, [ctypes.c_char_p, size]
    library.probe_encode.restype = ctypes.c_int64
    library.probe_encode.argtypes = [pointer, ctypes.c_char_p, size, pointer, size]
    library.probe_sha256.argtypes = [ctypes.c_char_p, size, ctypes.c_char_p]
    library.probe_random.argtypes = [ctypes.c_uint64, pointer, size]
    library.probe_manifest.argtypes = [ctypes.c_char_p, size]
    for name in ("probe_error", "probe_words"):
        getattr(library, name).restype = ctypes.c_char_p
    library.probe_words.argtypes = [ctypes.c_char_p]
    return library


def test_resize_gives_the_bytes_of_opencv(probe: ctypes.CDLL) -> None:
    rng = np.random.default_rng(3)
    for number in range(300 * MANY):
        h, w, height, width = (int(side) for side in np.exp(rng.uniform(0, np.log(260), 4)))
        if number % 4 == 0:  # sides that shrink by whole numbers
            h, w = height * int(rng.integers(1, 5)), width * int(rng.integers(1, 5))
        frame = rng.integers(0, 256, (h, w + 3, 3), np.uint8)[:, :w]
        found = np.empty((height, width, 3), np.uint8)
        probe.probe_resize(frame.ctypes.data, h, w, frame.strides[0], found.ctypes.data, height, width)
        wanted = resize_frame(np.ascontiguousarray(frame), (height, width))
        assert np.array_equal(wanted, found), (h, w, height, width)


def clip_like() -> Tokenizer:
    """CLIP's tokenizer with a few merges: the parts are those that ``ov2vss.text.clip_text`` puts together."""
    letters = list(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("r", "o"),
        ("c", "a"),
        ("ca", "r</w>"),
        ("ro", "a"),
        ("roa", "d</w>"),
        ("Ã", "©"),
        ("e", "r"),
        ("t", "h"),
    ]
    merges += [("th", "e</w>"), ("'", "s</w>"), ("ro", "ro"), ("a", "a"), ("aa", "aa")]
    tokens = [*sorted(letters), *(f"{letter}</w>" for letter in sorted(letters)), *(a + b for a, b in merges)]
    start, end = "<start_of_text>", "<end_of_text>"
    ids = {token: number for number, token in enumerate([*tokens, start, end])}
    made = Tokenizer(BPE(ids, merges, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    pairs = {"\uff01": "!", "ﬁ": "fi", "ĳ": "ij", "\ufeff": ""}
    replaced = [normalizers.Replace(found, instead) for found, instead in pairs.items()]
    quotes = [normalizers.Replace(Regex("[ʼ‘’‚‛]"), "'"), normalizers.Replace(Regex("[“”„‟]"), '"')]
    rest = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    made.normalizer = normalizers.Sequence([*replaced, *quotes, *rest])
    pieces = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(pieces), "removed", invert=True)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    made.add_special_tokens([AddedToken(token, normalized=True, special=True) for token in (start, end)])
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(token, ids[token]) for token in (start, end)]
    )
    made.enable_truncation(77)
    return made


def texts(seed: int, count: int) -> list[str]:
    """Names as people type them, and nonsense of all assigned characters."""
    draw = random.Random(seed)
    words = "a photo of the road car café naïve ÅNGSTRÖM straße 道路 한국어 İstanbul ﬁsh don't we'll ½ x²"
    known = [*words.split(), "🚗", "👨‍👩‍👧", "[MASK]", "[CLS]", "e\u0301\u0327", "\u1100\u1161\u11a8"]
    known += ["<end_of_text>", "<START_OF_TEXT>", "ά", "ΌΣ"]
    assigned = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    found = ["", "road " * 300, "x" * 100, "x" * 101]
    for _ in range(count):
        if draw.random() < 0.5:
            found.append(" ".join(draw.choice(known) for _ in range(draw.randint(0, 12))))
        else:
            found.append("".join(draw.choice(assigned) for _ in range(draw.randint(0, 40))))
    return found + draw.sample(assigned, 3000)


@pytest.mark.parametrize("kind", ["wordpiece", "clip"])
def test_tokenizers_give_the_ids_of_hugging_face(probe: ctypes.CDLL, kind: str) -> None:
    document = (BUNDLE / "tokenizer.json").read_bytes() if kind == "wordpiece" else clip_like().to_str().encode()
    theirs = Tokenizer.from_buffer(document)
    theirs.no_padding()
    ours = probe.probe_tokenizer(document, len(document))
    assert ours, probe.probe_error().decode()
    ids = np.empty(1000, np.int64)
    given = texts(7, 4000 * MANY)
    for text, wanted in zip(given, theirs.encode_batch(given), strict=True):
        data = text.encode()
        count = probe.probe_encode(ours, data, len(data), ids.ctypes.data, len(ids))
        assert ids[:count].tolist() == wanted.ids, text
    probe.probe_close(ctypes.c_void_p(ours))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda t: t.update(model={"type": "WordLevel", "vocab": {}, "unk_token": "x"}), "WordLevel"),
        (lambda t: t["normalizer"].update(type="Precompiled"), "Precompiled"),
        (lambda t: t["pre_tokenizer"].update(type="Whitespace"), "Whitespace"),
        (lambda t: t["added_tokens"][0].update(lstrip=True), "lstrip"),
        (lambda t: t["post_processor"].update(type="BertProcessing"), "BertProcessing"),
        (lambda t: t["truncation"].update(direction="Left"), "truncation"),
        (lambda t: t["model"].pop("vocab"), "vocab"),
    ],
)
def test_other_tokenizers_are_refused_by_name(probe: ctypes.CDLL, change: Callable[[dict], None], part: str) -> None:
    document = json.loads((BUNDLE / "tokenizer.json").read_text())
    change(document)
    data = json.dumps(document).encode()
    assert not probe.probe_tokenizer(data, len(data))
    assert part in probe.probe_error().decode()


def test_sha256_and_random_numbers_are_pythons(probe: ctypes.CDLL) -> None:
    digest = ctypes.create_string_buffer(65)
    for size in (0, 1, 55, 56, 63, 64, 65, 1000, 100_000):
        data = random.Random(size).randbytes(size)
        probe.probe_sha256(data, size, digest)
        assert digest.value.decode() == hashlib.sha256(data).hexdigest()
    for seed in (0, 1, 2**31, 2**40 + 7):
        drawn = np.empty(2000, np.uint64)
        probe.probe_random(seed, drawn.ctypes.data, len(drawn))
        source = random.Random(seed)
        assert drawn.tolist() == [source.randrange(n + 1) for n in range(2000)]


@pytest.mark.parametrize(
    "words",
    [
        "road; car, automobile ; Sky", " 'road'; \"a  b\"\n\ncar # no; truck", "e\u0301;\u00c9", "road;;car",
        "road, ;car",
        "road; Road", "straße; STRASSE", "x" * 200, "x" * 201, "a\x07b", "", "; ;", "#road",
        '["road", "car, van", ["x", "y"]]',
        "\u00a0road\u2003side\u3000", "a,a; b", "道路; 한국어", "\u1100\u1161; 가",
    ],
)  # fmt: skip
def test_words_are_read_as_python_reads_them(probe: ctypes.CDLL, words: str) -> None:
    got = probe.probe_words(words.encode())
    try:
        wanted = "".join(",".join(entry) + "\n" for entry in Vocabulary.parse(words).entries)
    except VocabularyError:
        assert got is None, got
        assert b";" in probe.probe_error()
        return
    assert got is not None, probe.probe_error()
    assert got.decode() == wanted


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda m: m.update(format_version=9), "format version 9"),
        (lambda m: m["tokenizer"].update(file="../tokenizer.json"), "plain file name"),
        (lambda m: m["tokenizer"].update(sha256="0"), "sha256"),
        (lambda m: m["variants"]["fp32"]["graphs"].pop("decoder"), "decoder"),
        (lambda m: m.update(gap=0), "gap"),
        (lambda m: m["preprocess"].update(size=[352]), "size"),
        (lambda m: m["state"].update(shape=[900_000, 900_000]), "large"),
        (lambda m: m.pop("name"), "name"),
    ],
)
def test_broken_manifests_are_refused_with_the_place(
    probe: ctypes.CDLL, change: Callable[[dict], None], part: str
) -> None:
    manifest = json.loads(Path(BUNDLE / "manifest.json").read_text())
    data = json.dumps(manifest).encode()
    assert probe.probe_manifest(data, len(data)), probe.probe_error()
    change(manifest)
    data = json.dumps(manifest).encode()
    assert not probe.probe_manifest(data, len(data))
    assert part in probe.probe_error().decode()
