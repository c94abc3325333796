"""Names that mean the same in several sets, and what a pixel of one says about the words of all."""

from types import SimpleNamespace

import pytest

from ov2vss.data.concepts import Concepts
from ov2vss.data.relations import Relations
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.bundle.vocabulary import Vocabulary


def table(tmp_path, text: str) -> Relations:
    (tmp_path / "r.txt").write_text(text)
    return Relations.read(tmp_path / "r.txt")


def concepts(relations: Relations, *sets: str, teacher: tuple[str, ...] = ()) -> Concepts:
    videos = [SimpleNamespace(classes=Vocabulary.parse([w.strip() for w in s.split(";")])) for s in sets]
    return Concepts(videos, teacher, relations)  # type: ignore[arg-type]


def test_the_same_is_a_hit_a_kind_is_neither_and_all_else_is_a_miss(tmp_path) -> None:
    found = table(tmp_path, "# comment\ntree = vegetation, plant\nperson, man > cyclist\n")
    judged = {
        ("tree", "tree"): 1,
        ("vegetation", "tree"): 1,
        ("vegetation", "plant"): -1,
        ("cyclist", "person"): 0,
        ("man", "cyclist"): 0,
        ("man", "person"): -1,
    }
    assert {pair: found.judge(*pair) for pair in judged} == judged


def test_a_foreign_word_counts_for_what_is_the_same_and_an_own_one_for_itself_alone(tmp_path) -> None:
    found = table(tmp_path, "tree = vegetation, bush\nbuilding > window\n")
    assert found.stands_for("tree", ["sky", "vegetation", "bush"]) == [1, 2]
    assert found.stands_for("tree", ["tree", "vegetation"]) == [0]
    assert found.stands_for("window", ["building"]) == []


def test_a_line_without_a_relation_is_refused_with_its_number(tmp_path) -> None:
    with pytest.raises(OV2VSSError, match="line 2: no relation in 'tree vegetation'"):
        table(tmp_path, "a = b\ntree vegetation\n")
    with pytest.raises(OV2VSSError, match="'nowhere' do not exist"):
        Relations.read("nowhere")


def test_classes_of_one_set_exclude_each_other_whatever_the_table_says(tmp_path) -> None:
    c = concepts(table(tmp_path, "tree = vegetation\n"), "tree; vegetation", "vegetation; sky")
    assert c.names == ["tree", "vegetation", "sky"]
    assert c.table(0, [], "unknown").tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]
    assert c.table(1, [], "unknown")[0].tolist() == [1, 1, -1]


def test_void_says_what_the_set_promises(tmp_path) -> None:
    c = concepts(table(tmp_path, "person > dancer\n"), "dancer; swan", "sky", teacher=("person",))
    assert c.names == ["dancer", "swan", "sky", "person"]
    assert c.table(0, [0], "unknown")[4].tolist() == [1, 1, 1, 1]
    assert c.table(0, [0], "object")[4].tolist() == [-1, 1, 1, 1]
    assert c.table(0, [0], "whole")[4].tolist() == [-1, -1, 1, 1]
    # A bystander beside the labelled dancer is a person, and not the dancer.
    assert (c.table(0, [0], "unknown")[3, 0], c.table(0, [0], "object")[3, 0]) == (0, -1)


def test_the_shipped_table_keeps_related_names_from_fighting() -> None:
    found = Relations.read("scenes")
    assert found.judge("bicyclist", "cyclist") == found.judge("pavement", "sidewalk") == 1
    assert found.judge("dancer", "person") == 0
    assert found.judge("grass", "sky") == -1
