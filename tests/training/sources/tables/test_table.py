"""Tables as people have them: names of columns, encodings, and paths of other machines."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehub.errors import DataError
from gatehub.training.sources import Source, read_source
from gatehub.training.sources.pictures import spell_label
from tests.training.images import write_images


def read(
    tmp_path: Path,
    text: str,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    name: str = "t.csv",
) -> Source:
    write_images(tmp_path, "x/1.png", "x/2.png")
    (tmp_path / name).write_bytes(text.encode(encoding))
    return read_source(tmp_path / name, columns=columns)


def listed(source: Source) -> list[tuple[str, str, str | None]]:
    return [(picture.name, picture.label, picture.side) for picture in source.pictures]


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("path,label,split", ()),
        ("path,label,fold", ()),
        ("file,class,set", ("Columns of t.csv: 'file' is the path, 'class' is the label, ",)),
        ("File Name,Species,Subset", ("Columns of t.csv: 'File Name' is the path, 'Species' is",)),
        ("image_path,category,fold", ("Columns of t.csv: 'image_path' is the path, 'category' ",)),
        ("filepath;class_name;split", ("Columns of t.csv: 'filepath' is the path, 'class_name' ",)),
        ("Label\tImage\tFold", ("Columns of t.csv: 'Image' is the path, 'Label' is the label.",)),
    ],
)
def test_usual_names_are_understood(tmp_path: Path, header: str, note: tuple[str, ...]) -> None:
    delimiter = next(each for each in ",;\t" if each in header)
    rows = [["x/1.png", "cat", "train"], ["x/2.png", "dog", "val"]]
    if header.startswith("Label"):
        rows = [[label, path, side] for path, label, side in rows]
    lines = [header, *(delimiter.join(row) for row in rows)]
    source = read(tmp_path, "\n".join(lines))
    sides = [None, None] if header.casefold().endswith("fold") else ["train", "val"]
    paths = ["x/1.png", "x/2.png"]
    assert listed(source) == list(zip(paths, ["cat", "dog"], sides, strict=True))
    assert len(source.notes) == len(note)
    assert all(text.startswith(start) for text, start in zip(source.notes, note, strict=True))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,image,label", "the columns 'file' and 'image' may each be the path.*path=file"),
        ("path,target,class", "'target' and 'class' may each be the label.*label=target"),
        ("path,class name,species", "may each be the label.*--columns 'label=class name'"),
        ("path,label,subset,set", "'subset' and 'set' may each be the split.*split=subset"),
        ("path,label,Label,label", "are path, label, Label, label; expected .* once each"),
    ],
)
def test_two_columns_for_one_thing_are_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv, line 1: .*{message}"):
        read(tmp_path, header)


def test_a_column_called_by_the_very_word_is_it(tmp_path: Path) -> None:
    header = "file,path,label,class,split,set"
    source = read(tmp_path, f"{header}\nno,x/1.png,cat,3,val,?\n")
    assert listed(source) == [("x/1.png", "cat", "val")]


def test_columns_are_those_that_are_named(tmp_path: Path) -> None:
    text = "path,file,label,class,split,set\nno,x/1.png,3,cat,?,train\nno,x/2.png,4,dog,?,val\n"
    columns = {"path": "file", "label": "class", "split": "set"}
    source = read(tmp_path, text, columns=columns)
    assert listed(source) == [("x/1.png", "cat", "train"), ("x/2.png", "dog", "val")]
    source = read(tmp_path, text, columns={**columns, "split": ""})
    assert {picture.side for picture in source.pictures} == {None}
    # What is taken for one thing is not taken for another, and what is not named is still found.
    source = read(tmp_path, "file,image\nx/1.png,cat\n", columns={"label": "image"})
    assert listed(source) == [("x/1.png", "cat", None)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": "fiel"}, "line 1: the columns are file, class; expected 'fiel', the path"),
        ({"split": "part"}, "expected 'part', the split, among them"),
        ({"lable": "class"}, "A column for 'lable' is named; expected path, label or split"),
        ({"path": ""}, "The column of the path is ''; expected its name"),
        ({"path": "file", "label": "file"}, "The columns file, file are named; expected different"),
        ({"path": 3}, "expected names of columns by what is in them"),
        ("path=file", "expected names of columns by what is in them"),
    ],
)
def test_columns_that_cannot_be(tmp_path: Path, columns: Mapping[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, "file,class\nx/1.png,cat\n", columns=columns)


@pytest.mark.parametrize("source", ["sklearn:digits", "glyphs:greek", "folder"])
def test_only_tables_have_columns(tmp_path: Path, source: str) -> None:
    write_images(tmp_path, "a/1.png", "b/1.png")
    where = tmp_path if source == "folder" else source
    with pytest.raises(DataError, match=r"columns of .* are named, which is no table"):
        read_source(where, columns={"path": "file"})


@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.tsv"])
def test_unicode_text_of_a_spreadsheet(tmp_path: Path, name: str) -> None:
    text = 'path\tlabel\r\nx\\1.png\t"Zoé, ""A""\r\nŁ"\r\n'
    source = read(tmp_path, text, encoding="utf-16", name=name)
    assert listed(source) == [("x/1.png", 'Zoé, "A"\r\nŁ', None)]


@pytest.mark.skipif(os.sep == "\\", reason="no name has a backslash there")
def test_a_backslash_is_a_separator_unless_a_file_has_it(tmp_path: Path) -> None:
    write_images(tmp_path, r"x\2.png")
    source = read(tmp_path, "path,label\nx\\1.png,a\nx\\2.png,b\nx/2.png,c\n")
    assert [picture.name for picture in source.pictures] == ["x/1.png", "x\\2.png", "x/2.png"]
    assert all(Path(str(picture.image)).is_file() for picture in source.pictures)


def test_two_spellings_of_a_path_are_one_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3: 'x/1\.png' stands on line 2 already"):
        read(tmp_path, "path,label\nx\\1.png,a\nx/1.png,b\n")


@pytest.mark.parametrize(
    "start", ["C:\\photos\\", "D:/", "/home/other/photos/", "\\\\server\\share\\data\\", "\\top\\"]
)
def test_paths_of_another_machine(tmp_path: Path, start: str) -> None:
    end = "x\\1.png" if "\\" in start else "x/1.png"
    with pytest.raises(DataError, match="an absolute path; it may be of another machine") as caught:
        read(tmp_path, f"path,label\n{start}{end},a\n")
    hint = caught.value.hint or ""
    assert re.match(
        rf"Remove '{re.escape(start)}' from the beginning of the paths: .* 'x/1.png' is", hint
    )
    with pytest.raises(DataError, match="Write paths relative to the table"):
        read(tmp_path, f"path,label\n{start}gone.png,a\n")


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from(',;\t"\r\n'),
    max_size=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.permutations(["x/1.png", "x/2.png", "x\\3.png"]),
    labels=st.lists(texts.filter(str.strip), min_size=3, max_size=3),
    notes=st.lists(texts, min_size=4, max_size=4),
    order=st.permutations(range(3)),
    delimiter=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"]),
)
def test_every_table_that_csv_writes_is_read(
    tmp_path: Path,
    names: list[str],
    labels: list[str],
    notes: list[str],
    order: list[int],
    delimiter: str,
    quoting: int,
    encoding: str,
) -> None:
    write_images(tmp_path, "x/1.png", "x/2.png", "x/3.png")
    rows = [("filename", "class", notes[0]), *zip(names, labels, notes[1:], strict=True)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerows([row[place] for place in order] for row in rows)
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    table = tmp_path / "t.csv"
    table.write_bytes(marks.get(encoding, b"") + text.getvalue().encode(encoding))
    assert listed(read_source(table)) == [
        (name.replace("\\", "/"), spell_label(label.strip()), None)
        for name, label in zip(names, labels, strict=True)
    ]


def test_a_split_column_that_is_none_can_be_left_out(tmp_path: Path) -> None:
    text = "path,label,set\nx/1.png,cat,A\n"
    with pytest.raises(DataError, match=r"the split is 'A'; expected .* --columns split="):
        read(tmp_path, text)
    assert read(tmp_path, text, columns={"split": ""}).pictures[0].side is None


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_column_of_0_and_1_is_the_split(tmp_path: Path, multi_label: bool) -> None:
    write_images(tmp_path, "x/1.png", "x/2.png")

    def sides(header: str, ones: str, **columns: str) -> list[str | None]:
        rows = f"x/1.png,cat,{ones}\nx/2.png,dog,{ones.translate({48: 49, 49: 48})}\n"
        (tmp_path / "t.csv").write_text(f"path,label,{header}\n{rows}", "utf-8")
        source = read_source(tmp_path / "t.csv", columns=columns, multi_label=multi_label)
        assert [picture.labels for picture in source.pictures] == [("cat",), ("dog",)]
        return [picture.side for picture in source.pictures]

    for header in ("is_valid", "is_val", "isValid", "Is Validation"):
        assert sides(header, "1") == ["val", "train"]
    assert sides("train,is_valid", "1,0") == ["train", "val"]
    assert sides("is_valid", "0", split="") == [None, None]
    assert sides("train,val", "1,0", split="val") == ["train", "val"]
    assert sides("test", "1", split="test") == ["test", "train"]
    for header in ("train,val", "train,test", "is_train,is_test"):
        with pytest.raises(DataError, match=f"{header.replace(',', ', ')} may say how") as told:
            sides(header, "1,0")
        assert f"--columns split={header.split(',')[1]}; or" in (told.value.hint or "")
        assert sides(header, "1,0", split="") == [None, None]
    with pytest.raises(DataError, match="the columns of 0 and 1 test may say how"):
        sides("is_valid,test", "1,0")
