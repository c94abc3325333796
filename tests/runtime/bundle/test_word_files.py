"""Class lists as people have them: read with the right classes, or refused; never one class called like the file."""

from pathlib import Path

import pytest

from ov2vss_runtime.bundle.vocabulary import Vocabulary
from ov2vss_runtime.errors import VocabularyError

THREE = (("road",), ("car",), ("sky",))
SYNONYMS = (("road",), ("car", "automobile"), ("sky",))

SAME_CLASSES = [
    ("plain.txt", "road\ncar\nsky\n", THREE),
    ("oneline.txt", "road; car, automobile; sky\n", SYNONYMS),
    ("several.txt", "road; car, automobile\nsky\n", SYNONYMS),
    ("quoted.txt", '"road"\n"car"\n"sky"\n', THREE),
    ("names.json", '["road","car","sky"]', THREE),
    ("names", '["road","car","sky"]', THREE),
    ("python.txt", "['road', 'car', 'sky']", THREE),
    ("ids.json", '{"0": "road", "10": "sky", "2": "car"}', THREE),
    ("back.json", '{"road": 0, "sky": 2, "car": 1}', THREE),
    ("hf.json", '{"model_type": "x", "id2label": {"0": "road", "1": "car", "2": "sky"}}', THREE),
    ("coco.json", '{"categories": [{"id": 3, "name": "sky", "supercategory": "out"}, {"id": 1, "name": "road"},'
                  ' {"id": 2, "name": "car"}], "images": []}', THREE),
    ("vistas.json", '{"labels": [{"name": "a--road", "readable": "Road"}, {"name": "b--car", "readable": "Car"}]}',
     (("Road",), ("Car",))),
    ("synonyms.json", '["road", ["car", "automobile"], "sky"]', SYNONYMS),
    ("synonyms2.json", '[{"name": "road"}, {"name": "car", "synonyms": ["automobile"]}, {"name": "sky"}]', SYNONYMS),
    ("data.yaml", "names:\n  0: road\n  1: car\n  2: sky\n", THREE),
    ("yolo.yaml", "# data\npath: data\ntrain: images\nnc: 3\nnames: ['road', 'car', 'sky']\n", THREE),
    ("list.yml", "- road\n- car\n- sky\n", THREE),
    ("norway.yaml", "names: [no, yes, on]\n", (("no",), ("yes",), ("on",))),
    ("list.txt", "- road\n- car\n- sky\n", THREE),
    ("data.txt", "names:\n  0: road\n  1: car\n  2: sky\n", THREE),
    ("excel_de.csv", "road;;\ncar;;\nsky;;\n", THREE),
    ("excel.csv", "\ufeffroad,,\r\ncar,automobile,\r\nsky,,\r\n", SYNONYMS),
    ("sep.csv", "sep=;\nroad\ncar\nsky\n", THREE),
    ("quotes.csv", '"road"\n"car, automobile"\n"sky"\n', SYNONYMS),
    ("one.csv", "road;car;sky\n", THREE),
    ("table.csv", "id,name\n0,road\n1,car\n2,sky\n", THREE),
    ("unsorted.csv", "id;name\n2;sky\n0;road\n1;car\n", THREE),
    ("bare.csv", "0,road\n1,car\n2,sky\n", THREE),
    ("behind.csv", "road,0\ncar,1\nsky,2\n", THREE),
    ("bare.txt", "0,road\n1,car\n2,sky\n", THREE),
    ("spaces.txt", "0 road\n1 car\n2 sky\n", THREE),
    ("colons.txt", "0: road\n1: car\n2: sky\n", THREE),
    ("tabs.tsv", "id\tname\n0\troad\n1\tcar\n2\tsky\n", THREE),
    ("tabs.txt", "0\troad\n1\tcar\n2\tsky\n", THREE),
    ("camvid.csv", "name,r,g,b\nroad,128,64,128\ncar,64,0,128\nsky,128,128,128\n", THREE),
    ("colours.csv", "0,#804080,road\n1,#400080,car\n2,#808080,sky\n", THREE),
    ("ade.csv", "Idx,Ratio,Train,Val,Stuff,Name\n1,0.2,1,1,1,road\n2,0.1,1,1,0,car;automobile\n3,0.1,1,1,1,sky\n",
     SYNONYMS),
    ("synonyms.csv", "id,name,synonyms\n0,road,\n1,car,automobile\n2,sky,\n", SYNONYMS),
    ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:64,0,128::\nsky:128,128,128::\n", THREE),
    ("label_map.pbtxt", "item {\n  id: 1\n  name: 'road'\n}\nitem { id: 2 name: 'car' }\nitem { id: 3 name: 'sky' }\n",
     THREE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "wanted"), SAME_CLASSES, ids=[case[0] for case in SAME_CLASSES])
def test_lists_of_other_tools_hold_their_classes(name: str, text: str, wanted: tuple, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert Vocabulary.parse(str(tmp_path / name)).entries == wanted


REFUSED = [
    ("nothing.json", "[]", "no class names"),
    ("broken.json", '["road", "car"', "line 1: no JSON"),
    ("numbers.json", "[1, 2, 3]", "'1' is no class name"),
    ("deep.json", '{"a": {"b": 1}, "c": "d"}', "holds no list of names"),
    ("twice.json", '{"0": "road", "0": "car"}', "a key stands there twice"),
    ("broken.yaml", "names: [road, car\n", "no YAML"),
    ("twice.yaml", "names:\n  0: road\n  0: car\n", "a key stands there twice"),
    ("tag.yaml", "names: !!python/object/apply:os.system ['true']\n", ""),
    ("numbers.csv", "1,2\n3,4\n", "no column of names"),
    ("commas.csv", "road,car,sky\n", "one line of commas"),
    ("page.txt", "<html>\n<body>road</body>\n", "is no class name"),
    ("table.md", "| 0 | road |\n| 1 | car |\n", "is no class name"),
    ("code.txt", "names = 'road'\n", "is no class name"),
    ("same.json", '["road", "Road"]', "repeats entry 1"),
]


@pytest.mark.parametrize(("name", "text", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_no_class_list_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    if name == "tag.yaml":  # nothing in a YAML file is ever called
        assert Vocabulary.parse(str(tmp_path / name)).names == ["true"]
        return
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.parse(str(tmp_path / name))


@pytest.mark.parametrize(
    "text", ["nope.csv", "nope.TXT", "lists/nope", "./nope", "~/nope", "nope.names", "C:\\nope", "a b/my list.yaml"]
)
def test_what_looks_like_a_path_has_to_exist(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VocabularyError, match="does not exist; check the path; if it is a word, write"):
        Vocabulary.parse(text)
    assert Vocabulary.parse(text + ";").names == [text]


def test_words_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "road").mkdir()
    for words, names in [
        ("road", ["road"]),
        ("St. Bernard", ["St. Bernard"]),
        ("No. 1", ["No. 1"]),
        ("car / truck; sky", ["car / truck", "sky"]),
        ("road\ncar\n", ["road", "car"]),
        ('"road"; "car"', ["road", "car"]),
        ('["road", "car"]', ["road", "car"]),
    ]:
        assert Vocabulary.parse(words).names == names
