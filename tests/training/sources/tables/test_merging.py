"""Several tables of one task: each image once, with what all of them say of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehub.errors import DataError
from gatehub.training.data import ImageData, list_data, load_data
from gatehub.training.sources import Source, read_source, takes_columns
from tests.training.images import numbered, write_images

IMAGES = [f"{i}.png" for i in range(1, 5)]


def write(folder: Path, **tables: str) -> list[Path]:
    """Write four images, and tables whose commas stand for line breaks between rows."""
    write_images(folder, *IMAGES)
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(text.split()), "utf-8")
    return [folder / f"{name}.csv" for name in tables]


def read(folder: Path, *, multi_label: bool = True, to_train: bool = True, **tables: str) -> Source:
    given = write(folder, **tables)
    return read_source(given, multi_label=multi_label, to_train=to_train)


def labels(source: Source) -> dict[str, tuple[str, ...]]:
    found = {picture.name: picture.labels for picture in source.pictures}
    assert len(found) == len(source.pictures)  # each image once
    return found


def test_an_image_has_the_labels_of_all_tables(tmp_path: Path) -> None:
    source = read(
        tmp_path,
        animals="path,label 1.png,cat 2.png,dog 4.png,cat|dog",
        colours="path,label ./1.png,red 3.png,red",
    )
    assert labels(source) == {
        "1.png": ("cat", "red"),
        "2.png": ("dog",),
        "3.png": ("red",),
        "4.png": ("cat", "dog"),
    }
    assert (source.multi_label, source.labels) == (True, None)
    assert source.notes == (
        "animals.csv: Labels in a cell are separated by '|'.",
        "3 of 4 images do not stand in every table; they count as having none of the labels of "
        "the others.",
    )


def test_columns_of_0_and_1_keep_their_order(tmp_path: Path) -> None:
    source = read(
        tmp_path,
        a="path,red,dog 1.png,1,0 2.png,0,1",
        b="path,label 1.png,cat 2.png,emu",
    )
    assert source.labels == ("red", "dog", "cat", "emu")
    assert labels(source) == {"1.png": ("cat", "red"), "2.png": ("dog", "emu")}


@pytest.mark.parametrize("multi_label", [False, True])
def test_tables_may_follow_each_other(tmp_path: Path, multi_label: bool) -> None:
    """The same labels of other images: nothing is said, and an image may stand in both."""
    source = read(
        tmp_path,
        a="path,label 3.png,cat 4.png,dog",
        b="path,label 1.png,dog 2.png,cat 3.png,cat",
        multi_label=multi_label,
    )
    assert labels(source) == {
        "1.png": ("dog",),
        "2.png": ("cat",),
        "3.png": ("cat",),
        "4.png": ("dog",),
    }
    assert source.notes == ()


@pytest.mark.parametrize(("to_train", "hint"), [(True, "--multi-label"), (False, "does not fit")])
def test_classes_that_contradict_each_other_are_named(
    tmp_path: Path, to_train: bool, hint: str
) -> None:
    told = r"'1\.png' is 'cat' in \S*a\.csv, and 'red' in \S*b\.csv; expected one label an image\."
    with pytest.raises(DataError, match=told) as caught:
        read(
            tmp_path,
            a="path,label 1.png,cat",
            b="path,label 2.png,cat 1.png,red",
            multi_label=False,
            to_train=to_train,
        )
    assert hint in str(caught.value.hint)


def test_one_table_may_say_the_sides_of_all(tmp_path: Path) -> None:
    source = read(
        tmp_path,
        a="path,label 1.png,red 2.png,red",
        b="path,label,split 1.png,cat,train 2.png,dog,val",
    )
    assert [picture.side for picture in source.pictures] == ["train", "val"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("path,label,split 1.png,red,val", r"'1\.png' is in train in \S*a\.csv, and in val in \S*"),
        ("path,label 1.png,red 3.png,red", r"1 images have no side .* such as '3\.png' of \S*b\."),
    ],
)
def test_sides_that_do_not_fit_are_refused(tmp_path: Path, other: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, a="path,label,split 1.png,cat,train 2.png,dog,val", b=other)


def test_tables_in_other_folders_name_other_images(tmp_path: Path) -> None:
    """The same words are two files, and other words one."""
    given = [
        *write(tmp_path / "a", t="path,label 1.png,cat 2.png,dog"),
        *write(tmp_path / "b", t="path,label 1.png,dog ../a/2.png,dog"),
    ]
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "more.csv").write_text("path,label\n2.png,dog\n")
    source = read_source([*given, tmp_path / "c" / "more.csv"])
    assert labels(source) == {"a/1.png": ("cat",), "a/2.png": ("dog",), "b/1.png": ("dog",)}
    assert [picture.image.read_bytes() for picture in source.pictures] == [  # type: ignore[union-attr]
        (tmp_path / picture.name).read_bytes() for picture in source.pictures
    ]


def test_an_order_of_classes_is_that_of_all_tables(tmp_path: Path) -> None:
    given = write(tmp_path, a="path,label 1.png,cat 2.png,dog", b="path,label 3.png,emu 4.png,cat")
    (tmp_path / "classes.txt").write_text("emu\ncat\ndog\n")
    assert read_source(given).labels == ("emu", "cat", "dog")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"lacks classes of which .*a\.csv, .*b\.csv has images: e"):
        read_source(given)


def test_what_cannot_be_given_together(tmp_path: Path) -> None:
    (table,) = write(tmp_path, a="path,label 1.png,cat 2.png,dog")
    for sources, told in (
        ([table, tmp_path], "Several data sources are given, and .* is no table"),
        (["sklearn:digits", table], "'sklearn:digits' is no table"),
        ([table, tmp_path / "." / "a.csv", table], "is named twice, also as"),
        ([], "No data source is given"),
        (7, "The data source is 7; expected text, a path, or several"),
        ([table, 7], "expected text, a path, or several"),
    ):
        with pytest.raises(DataError, match=told):
            list_data(sources)  # type: ignore[arg-type]
    assert read_source([table]).pictures[0].label == read_source(table).pictures[0].label == "cat"


def test_columns_that_are_named_are_those_of_every_table(tmp_path: Path) -> None:
    given = write(tmp_path, a="file,kind 1.png,cat", b="file,kind 2.png,dog")
    columns = {"path": "file", "label": "kind"}
    assert takes_columns(given, columns)
    assert labels(read_source(given, columns=columns)) == {"1.png": ("cat",), "2.png": ("dog",)}
    (tmp_path / "b.csv").write_text("file,class\n2.png,dog\n")
    assert not takes_columns(given, columns)
    with pytest.raises(DataError, match=r"b\.csv, line 1: .* expected 'kind', the label"):
        read_source(given, columns=columns)


def cut(data: ImageData) -> tuple[object, ...]:
    return data.labels, data.train.names, data.train.targets, data.val.names, data.digests()


def test_the_data_is_the_same_whatever_the_order_of_its_tables(tmp_path: Path) -> None:
    """So a run goes on however they are named; and what any of them says is part of it."""
    write_images(tmp_path, *numbered("x", 12))
    rows = [f"x/{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(12)]
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(rows[:8]))
    (tmp_path / "b.csv").write_text("path,label\n" + "".join(f"x/{i}.png,red\n" for i in (0, 3, 9)))
    given = [tmp_path / "a.csv", tmp_path / "b.csv"]
    data = load_data(given, multi_label=True, val_fraction=0.5)
    assert data.source == tuple(map(str, given))
    assert cut(data) == cut(load_data(given[::-1], multi_label=True, val_fraction=0.5))
    spelt = [os.path.relpath(table) for table in given]
    assert cut(data) == cut(load_data(spelt, multi_label=True, val_fraction=0.5))
    (tmp_path / "b.csv").write_text("path,label\n" + "".join(f"x/{i}.png,red\n" for i in (0, 3, 1)))
    other = load_data(given, multi_label=True, val_fraction=0.5)
    assert data.digests().order != other.digests().order


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sets=st.lists(
        st.dictionaries(st.sampled_from(IMAGES), st.sets(st.sampled_from("abcd"), min_size=1)),
        min_size=1,
        max_size=3,
    ).filter(lambda sets: any(sets))
)
def test_labels_are_the_union_of_any_tables(
    tmp_path: Path, sets: list[dict[str, set[str]]]
) -> None:
    tables = {
        f"t{number}": " ".join(["path,labels", *(f"{k},{'|'.join(v)}" for k, v in own.items())])
        for number, own in enumerate(sets)
    }
    expected = {
        image: tuple(sorted(set().union(*(own.get(image, set()) for own in sets))))
        for image in IMAGES
        if any(image in own for own in sets)
    }
    assert labels(read(tmp_path, **tables)) == expected


def test_a_fault_of_one_table_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "b.csv, line 2"))):
        read(tmp_path, a="path,label 1.png,cat", b="path,label 9.png,dog")
