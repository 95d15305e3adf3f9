"""Any number of labels for an image, in each of the ways in which tables have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehub.errors import DataError
from gatehub.training.sources import Source, read_source
from gatehub.training.sources.pictures import spell_label
from gatehub.training.sources.tables.label_sets import split_cells
from tests.training.images import write_images

IMAGES = [f"x/{i}.png" for i in range(1, 5)]


def read(
    tmp_path: Path, text: str, *, multi_label: bool = True, to_train: bool = True, **columns: str
) -> Source:
    write_images(tmp_path, *IMAGES)
    (tmp_path / "t.csv").write_text(text, "utf-8")
    return read_source(
        tmp_path / "t.csv", columns=columns, multi_label=multi_label, to_train=to_train
    )


def sets(source: Source) -> list[tuple[str, ...]]:
    assert source.multi_label
    return [picture.labels for picture in source.pictures]


EXPECTED = [("cat", "red"), (), ("cat",), ("dog", "red")]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("path,labels\n1,cat|red\n2,\n3,cat\n4,dog|red\n", "separated by '|'"),
        ("path,labels\n1,red ; cat\n2,\n3,cat;\n4,dog;red;dog\n", "separated by ';'"),
        ("path;tags\n1;cat,red\n2;\n3;cat\n4;dog,red\n", "separated by ','"),
        ('path,labels\n1,"cat, red"\n2,\n3,cat\n4,"dog,red"\n', "separated by ','"),
        ("image,tags\n1,red cat\n2,\n3,cat\n4,dog  red\n", "separated by blanks"),
        ("path,labels\n1,\"['cat', 'red']\"\n2,[]\n3,['cat']\n4,\"[dog, red]\"\n", None),
        ("path,label\n1,cat\n2,\n3,cat\n1,red\n4,dog\n4,red\n", "4 images stand on 6 lines"),
        ("path,cat,dog,red\n1,1,0,1\n2,0,0,0\n3,1,0,0\n4,0,1,1\n", "3 columns of 0 and 1 are"),
        ("path,cat,dog,red\n1,1.0,0.0,1.0\n2,0,0,0\n3,1,0,0\n4,0,1,1\n", "cat, dog, red."),
        ("path,cat,dog,red\n1,True,false,TRUE\n2,0,0,0\n3,1,0,0\n4,0,1,1\n", "cat, dog, red."),
        ("path\tcat\tdog\tred\n1\t1\t0\t1\n2\t0\t0\t0\n3\t1\t0\t0\n4\t0\t1\t1\n", "cat, dog, red."),
    ],
)
def test_every_way_of_writing_is_read_alike(tmp_path: Path, text: str, note: str | None) -> None:
    source = read(tmp_path, re.sub(r"^(\d)", r"x/\1.png", text, flags=re.MULTILINE))
    assert sets(source) == EXPECTED
    assert [picture.name for picture in source.pictures] == IMAGES
    if note is not None:
        assert any(note in told for told in source.notes), source.notes


def test_columns_of_0_and_1_keep_their_order_and_others_are_named(tmp_path: Path) -> None:
    text = (
        "path,zebra,age,ape,is_valid,split\n"
        "x/1.png,1,1,0,1,train\nx/2.png,0,23,1,0,val\nx/3.png,0,0,0,0,train\nx/4.png,1,1,1,1,val\n"
    )
    source = read(tmp_path, text)
    assert source.labels == ("zebra", "ape")
    assert sets(source) == [("zebra",), ("ape",), (), ("ape", "zebra")]
    assert [picture.side for picture in source.pictures] == ["train", "val", "train", "val"]
    assert "Not 0 or 1 throughout, so no labels: age." in source.notes
    assert any("by name, so no labels: is_valid." in note for note in source.notes)
    named = read(tmp_path, text, label="ape|is_valid")
    assert named.labels == ("ape", "is_valid")
    with pytest.raises(DataError, match=r"t\.csv, line 3: 'age' is '23'; expected 0 or 1"):
        read(tmp_path, text, label="ape|age")
    with pytest.raises(DataError, match=r"expected 'bee', a label, once among them"):
        read(tmp_path, text, label="ape|bee")


def test_a_label_called_like_a_side_is_never_lost(tmp_path: Path) -> None:
    text = "path,car,train\nx/1.png,1,0\nx/2.png,0,1\nx/3.png,1,1\nx/4.png,0,0\n"
    with pytest.raises(DataError, match=r"0 and 1 train may say .* or be labels") as told:
        read(tmp_path, text)
    assert "--columns split=" in (told.value.hint or "")
    labels = [("car",), ("train",), ("car", "train"), ()]
    for columns in ({"split": ""}, {"label": "car|train"}):
        source = read(tmp_path, text, **columns)
        assert sets(source) == labels
        assert {picture.side for picture in source.pictures} == {None}
    sides = iter(["split", "train", "train", "train", "val"])
    with_split = re.sub("$", lambda _: f",{next(sides, '')}", text.strip(), flags=re.MULTILINE)
    source = read(tmp_path, with_split)
    assert sets(source) == labels
    copies = iter(["val", "0", "0", "0", "1"])
    text = re.sub("$", lambda _: f",{next(copies, '')}", with_split, flags=re.MULTILINE)
    source = read(tmp_path, text)
    assert source.labels == ("car", "train")
    [note] = [note for note in source.notes if "by name, so no labels: val" in note]
    assert "--columns 'label=car|train|val'" in note


def test_columns_of_0_and_1_of_one_name_are_refused(tmp_path: Path) -> None:
    for twin in ("ros\u00e9", "rose\u0301"):
        text = f"path,ros\u00e9,cat,{twin}\nx/1.png,1,0,0\nx/2.png,0,1,1\n"
        with pytest.raises(DataError, match="several columns of 0 and 1 are called 'ros\u00e9'"):
            read(tmp_path, text)
    source = read(tmp_path, "path,rose\u0301\nx/1.png,1\nx/2.png,0\n", label="ros\u00e9")
    assert source.labels == ("ros\u00e9",)


def test_columns_that_are_1_throughout_are_told_from_labels(tmp_path: Path) -> None:
    text = "path,width,circle,red\nx/1.png,1,1,0\nx/2.png,1,0,1\n"
    with pytest.raises(DataError, match="has 1 throughout in: width;") as told:
        read(tmp_path, text)
    assert "--columns 'label=circle|red'" in (told.value.hint or "")
    assert read(tmp_path, text, label="circle|red").labels == ("circle", "red")


def test_one_column_of_0_and_1_and_one_without_a_name(tmp_path: Path) -> None:
    text = ",path,red\n0,x/1.png,1\n1,x/2.png,0\n"
    assert "1 column of 0 and 1 is the label: red." in read(tmp_path, text).notes
    text = "path,tall,red\nx/1.png,1,0\nx/2.png,1,1\n"
    source = read(tmp_path, text, label="red")
    assert (source.labels, sets(source)) == (("red",), [(), ("red",)])
    assert sets(read(tmp_path, text.replace("red", "class"))) == [("0",), ("1",)]
    with pytest.raises(DataError, match="but 2 of 0 and 1: red, cat"):
        read(tmp_path, ",path,red,cat\n0,x/1.png,1,0\n", multi_label=False)


def test_names_may_hold_blanks_where_something_else_separates(tmp_path: Path) -> None:
    source = read(tmp_path, "path,labels\nx/1.png,traffic light|car\nx/2.png,traffic light\n")
    assert sets(source) == [("car", "traffic light"), ("traffic light",)]
    source = read(tmp_path, "path,label\nx/1.png,traffic light\nx/1.png,car\nx/2.png,bus stop\n")
    assert sets(source) == [("car", "traffic light"), ("bus stop",)]


@given(
    st.lists(
        st.frozensets(st.text("abé -_1", min_size=1, max_size=4).map(str.strip).filter(bool)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from("|;,"),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_joined_is_split_again(labels: list[frozenset[str]], separator: str) -> None:
    labels.append(frozenset({"first", "second"}))  # so that the separator is there
    cells = [separator.join(sorted(own)) for own in labels]
    assert split_cells(cells, repeated=False, where="t").labels == labels


LABELS = st.lists(st.text(min_size=1, max_size=4).map(str.strip).filter(bool), max_size=3)
HOSTILE = ["caf\u00e9", '5" bar', "it's", "a, b", "\\d", "[x]", "(y)"]


@given(
    st.lists(LABELS, max_size=4),
    st.sampled_from(
        [
            json.dumps,
            lambda own: json.dumps(own, ensure_ascii=False),
            repr,
            lambda own: repr(tuple(own)),
            lambda own: repr(set(own)),
        ]
    ),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_lists_of_json_and_python_are_read_again(
    labels: list[list[str]], write: Callable[[list[str]], str]
) -> None:
    labels.append(HOSTILE)
    found = split_cells([write(own) for own in labels], repeated=False, where="t").labels
    assert found == [frozenset(map(spell_label, own)) for own in labels]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['cat' 'dog']", {"cat", "dog"}),  # of NumPy
        ("['cat'\n 'dog']", {"cat", "dog"}),
        ("[cat, traffic light]", {"cat", "traffic light"}),
        ("[1, 2]", {"1", "2"}),
        ("()", set()),
        ("set()", set()),
        ("(cat)", {"(cat)"}),
        ("{cat}", {"{cat}"}),
        ("('cat')", {"('cat')"}),
        ('{"cat": 1}', {'{"cat": 1}'}),
        ("[" * 9999, {"[" * 9999}),
    ],
)
def test_what_is_nearly_a_list(cell: str, labels: set[str]) -> None:
    assert split_cells([cell, ""], repeated=True, where="t").labels == [labels, frozenset()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,labels\nx/1.png,a|b\nx/2.png,"a,b"\n', "separates labels by '|', and has the lab"),
        (
            "path,split,label\nx/1.png,train,a\nx/1.png,val,b\n",
            "is in val, and on line 2",
        ),
        ("path,age\nx/1.png,23\n", "no column of labels, and none that is 0 or 1"),
        ("path,cat,dog\nx/1.png,1,0\nx/1.png,0,1\n", "line 3: 'x/1.png' stands on line 2 already"),
        ("path,labels\nx/1.png,a,b\n", "line 2: 3 cells; expected 2"),
        ("path,labels\nx/9.png,a\n", "there is no file 'x/9.png'"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_what_is_no_table_has_one_label_an_image(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(DataError, match="cannot have several labels for an image") as told:
        read_source(tmp_path, multi_label=True)
    assert "leave --multi-label out" in (told.value.hint or "")
    with pytest.raises(DataError, match="cannot have several labels for an image") as told:
        read_source(tmp_path, multi_label=True, to_train=False)
    assert (told.value.hint or "").startswith("The adapter gives an image any number of labels")
    for source in ("sklearn:digits", "glyphs:greek"):
        with pytest.raises(DataError, match="cannot have several labels for an image: it has one"):
            read_source(source, multi_label=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1,cat|red\n2,red\n3,cat\n", "made of fewer, with '|'"),
        ("path,label\n1,cat;red\n2,red\n3,cat\n", "made of fewer, with ';'"),
        ('path,labels\n1,"cat, red"\n2,red\n3,cat\n', "made of fewer, with ','"),
        ("path,label\n1,cat\n1,red\n", "stands on line 2 already"),
        ("path,label\n1,cat\n2,\n", "line 3: the label is empty"),
        ("path,cat,red\n1,1,0\n2,1,1\n", "no column of labels, but 2 of 0 and 1: cat, red"),
    ],
)
def test_several_labels_that_nobody_announced_name_the_option(
    tmp_path: Path, text: str, message: str
) -> None:
    text = re.sub(r"^(\d)", r"x/\1.png", text, flags=re.MULTILINE)
    with pytest.raises(DataError, match=re.escape(message)) as told:
        read(tmp_path, text, multi_label=False)
    assert "--multi-label" in (told.value.hint or "")
    with pytest.raises(DataError, match=re.escape(message)) as told:
        read(tmp_path, text, multi_label=False, to_train=False)
    assert "the adapter does not fit: it gives one label an image" in (told.value.hint or "")
    assert "multi" not in (told.value.hint or "")


def test_names_with_signs_are_classes_and_said_so_where_they_may_not_be(tmp_path: Path) -> None:
    def notes(*labels: str) -> list[str]:
        rows = zip(IMAGES, labels, strict=False)
        text = "path,label\n" + "".join(f'{path},"{label}"\n' for path, label in rows)
        source = read(tmp_path, text, multi_label=False)
        assert [picture.label for picture in source.pictures] == list(labels)
        return [note for note in source.notes if "--multi-label" in note]

    assert notes("tench, Tinca tinca", "crane", "maillot", "maillot, tank suit") == []
    assert notes("traffic light", "stop sign") == []
    [note] = notes("cat|dog", "bird")
    assert note.startswith(f"{tmp_path / 't.csv'} has 2 different labels, such as 'cat|dog'; if")
    [note] = notes("red cat", "red", "cat", "dog")
    assert "such as 'red cat'; if an image has several labels there" in note
    [note] = read(
        tmp_path, "path,label\nx/1.png,cat|dog\n", multi_label=False, to_train=False
    ).notes
    assert note.endswith("several labels, the adapter does not fit: it gives one label an image.")
