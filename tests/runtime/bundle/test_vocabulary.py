from pathlib import Path

import numpy as np
import pytest

from ov2vss_runtime.bundle.added_words import add_vocabulary
from ov2vss_runtime.bundle.bundle import builtin_bundles
from ov2vss_runtime.bundle.text import class_embeddings
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.errors import OV2VSSError, VocabularyError


def test_names_synonyms_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("# streets\nroad,  carriageway\n\nperson , pedestrian # on foot\n  sky\n", encoding="utf-8")
    words = Vocabulary.from_file(path)
    assert words.entries == (("road", "carriageway"), ("person", "pedestrian"), ("sky",))
    assert words == Vocabulary.parse("road, carriageway; person, pedestrian; sky")
    assert words == Vocabulary.parse(str(path)) == Vocabulary.parse(path)
    assert words.names == ["road", "person", "sky"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class names"),
        (" ; # only a comment", "would be a comment"),
        ("road; road", "entry 2: 'road' repeats entry 1"),
        ("road, lane; Lane", "entry 2: 'lane' repeats entry 1"),
        ("road,, lane", "empty name or synonym"),
        ("x" * 201, "201 characters"),
        ("a\x07b", "control characters"),
    ],
)
def test_bad_entries_are_named(text: str, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.parse(text)


def test_files_that_are_no_class_lists(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="does not exist"):
        Vocabulary.parse("missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00road")
    with pytest.raises(VocabularyError, match="not UTF-8"):
        Vocabulary.parse(tmp_path / "binary.txt")


def test_class_embeddings_average_synonyms_and_templates() -> None:
    table = {}

    def encode(texts: list[str]) -> np.ndarray:
        rows = []
        for text in texts:
            if text not in table:
                vector = np.random.default_rng(len(table)).normal(size=8)
                table[text] = vector / np.linalg.norm(vector)
            rows.append(table[text])
        return np.asarray(rows, np.float32)

    words = Vocabulary.parse("road, lane; sky")
    templates = ("a {}.", "the {} here")
    got = class_embeddings(encode, words, templates)
    for row, entry in zip(got, words.entries, strict=True):
        mean = np.mean([table[t.format(word)] for word in entry for t in templates], axis=0)
        assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_dictionaries_and_lists_keep_their_synonyms() -> None:
    wanted = Vocabulary.parse("road; car, automobile, motor car; sky, heaven")
    assert Vocabulary.parse({"road": None, "car": ["automobile", "motor car"], "sky": "heaven"}) == wanted
    assert Vocabulary.parse({"road": (), "car": "automobile, motor car", "sky": ("heaven",)}) == wanted
    assert Vocabulary.parse(["road", ("car", "automobile", "motor car"), "sky, heaven"]) == wanted
    for broken, said in (({"road": [3]}, "3 is no text"), ([7], "7 is no text"), ({"a#b": None}, "contains #")):
        with pytest.raises(VocabularyError, match=said):
            Vocabulary.parse(broken)


def test_words_are_not_added_to_the_installed_package(tmp_path: Path) -> None:
    folder = builtin_bundles()["street-lite"]
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()}
    for path in (folder, folder / ".." / folder.name):
        with pytest.raises(OV2VSSError, match=r"part of the installed package.*copy it first \(cp -r"):
            add_vocabulary(path, "animals", Vocabulary.parse("zebra; pony"))
    assert {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()} == before
