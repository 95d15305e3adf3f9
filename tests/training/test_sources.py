from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from gatehub.errors import DataError
from gatehub.training.sources import FORMS, generated, name_some, read_source
from gatehub.training.sources.glyphs import SCRIPTS, render_glyphs
from tests.training.images import write_images

FORM_NAMES = ["train/CLASS", "val/CLASS", ".csv", ".tsv", "sklearn:digits", "glyphs:SCRIPT"]


def listing(source: str | Path) -> list[tuple[str, str, str | None]]:
    return [(picture.name, picture.label, picture.side) for picture in read_source(source).pictures]


def write_table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_split_folder_keeps_its_sides(tmp_path: Path) -> None:
    write_images(tmp_path, "val/b/1.png", "val/a/2.png", "train/b/3.png", "train/a/4.png")
    assert listing(tmp_path) == [
        ("train/a/4.png", "a", "train"),
        ("train/b/3.png", "b", "train"),
        ("val/a/2.png", "a", "val"),
        ("val/b/1.png", "b", "val"),
    ]


def test_class_folders_are_walked_in_code_point_order(tmp_path: Path) -> None:
    write_images(
        tmp_path, "b/z.png", "b/deep/er/y.png", "b/Z.png", "a/é.png", "a/10.png", "a/9.png"
    )
    assert listing(str(tmp_path)) == [
        ("a/10.png", "a", None),
        ("a/9.png", "a", None),
        ("a/é.png", "a", None),
        ("b/Z.png", "b", None),
        ("b/deep/er/y.png", "b", None),
        ("b/z.png", "b", None),
    ]


def test_every_common_suffix_counts_in_any_case(tmp_path: Path) -> None:
    names = ["a.bmp", "b.gif", "c.jpeg", "d.jpg", "e.pgm", "f.png", "g.ppm", "h.tif", "i.tiff"]
    write_images(tmp_path, *(f"cat/{name}" for name in [*names, "j.webp", "k.JPG"]))
    assert [name for name, _, _ in listing(tmp_path)] == [
        f"cat/{name}" for name in [*names, "j.webp", "k.JPG"]
    ]


def test_other_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/1.png", "cat/.2.png", "cat/.thumbs/3.png", ".git/4.png", "5.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    assert listing(tmp_path) == [("cat/1.png", "cat", None)]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write_images(tmp_path, "elsewhere/1.png", "data/dog/2.png")
    data = tmp_path / "data"
    (data / "cat").symlink_to(tmp_path / "elsewhere")
    (data / "dog" / "loop").symlink_to(data / "dog")
    (data / "dog" / "self.png").symlink_to("self.png")
    (data / "dog" / "gone.png").symlink_to("nowhere.png")
    assert [name for name, _, _ in listing(data)] == [
        "cat/1.png",
        "dog/2.png",
        "dog/gone.png",
        "dog/self.png",
    ]


def test_classes_that_differ_between_the_sides_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png")
    with pytest.raises(DataError, match=r"differ: only in train: b; only in val: c\..*both sides"):
        read_source(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1.png", "plane/1.png")
    assert [label for _, label, _ in listing(tmp_path)] == ["plane", "train"]


@pytest.mark.parametrize("empty", ["cat", "train/cat", "val/cat"])
def test_empty_class_folder_is_named(tmp_path: Path, empty: str) -> None:
    if "/" in empty:
        write_images(
            tmp_path, "train/dog/1.png", "val/dog/1.png", "train/cat/1.png", "val/cat/1.png"
        )
        (tmp_path / empty / "1.png").unlink()
    else:
        write_images(tmp_path, "dog/1.png")
        (tmp_path / empty).mkdir()
    with pytest.raises(
        DataError, match=rf"{re.escape(str(tmp_path / empty))} holds no images; .* WebP"
    ):
        read_source(tmp_path)


@pytest.mark.parametrize("names", [[], ["1.png", "2.png"], [".hidden/1.png"]])
def test_folder_without_class_folders(tmp_path: Path, names: list[str]) -> None:
    write_images(tmp_path, *names)
    with pytest.raises(DataError, match="has no class folders; expected one folder of images"):
        read_source(tmp_path)


def test_side_without_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1.png", "val/cat/1.png")
    with pytest.raises(DataError, match="train has no class folders"):
        read_source(tmp_path)


def test_class_name_that_is_not_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system stores no such name")
    with pytest.raises(DataError, match=r"'caf\\udce9' .* not UTF-8"):
        read_source(tmp_path)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(DataError, match=r"not ASCII\. Set PYTHONUTF8=1"):
        read_source(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list any folder")
def test_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/1.png")
    (tmp_path / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be listed: Permission denied"):
            read_source(tmp_path)
    finally:
        (tmp_path / "cat").chmod(0o700)


@pytest.mark.parametrize("source", ["nowhere", "sklearn:iris", "https://example.org/a.zip", ""])
def test_unknown_form_lists_the_forms(source: str) -> None:
    with pytest.raises(DataError, match="does not exist; expected") as caught:
        read_source(source)
    assert FORMS in caught.value.message
    assert all(name in FORMS for name in FORM_NAMES)


def test_file_that_is_no_table_lists_the_forms(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK")
    sheet = tmp_path / "labels.xlsx"
    sheet.write_bytes(b"PK")
    with pytest.raises(DataError, match="neither a folder nor a table") as caught:
        read_source(str(sheet))
    assert caught.value.hint == 'Save the sheet as "CSV UTF-8", and name that file.'
    with pytest.raises(DataError, match="neither a folder nor a table; expected a folder with"):
        read_source(tmp_path / "images.zip")


def test_table_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    write_images(tmp_path, "t/a/1.png", "2.png")
    table = write_table(
        tmp_path / "t" / "images.csv",
        "\ufeffpath, label ,note\r\n"
        "a/1.png,cat,x\r\n"
        "\r\n"
        '../2.png, dog,"one, two"\r\n'
        f"{tmp_path / 't' / 'a'}/../a/3.png,cat,y\r\n",
    )
    write_images(tmp_path, "t/a/3.png")
    names = ["a/1.png", "../2.png", f"{tmp_path / 't' / 'a'}/../a/3.png"]
    assert listing(table) == list(zip(names, ["cat", "dog", "cat"], [None] * 3, strict=True))


def test_table_may_say_the_split_and_use_tabs(tmp_path: Path) -> None:
    write_images(tmp_path, "1.png", "2,3.png")
    table = write_table(
        tmp_path / "images.TSV", "path\tlabel\tsplit\n1.png\tcat\ttrain\n2,3.png\tdog\tval\n"
    )
    assert listing(table) == [("1.png", "cat", "train"), ("2,3.png", "dog", "val")]


def test_table_may_call_the_sides_otherwise(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{number}.png" for number in range(4)))
    rows = ("0.png,a,Training", "1.png,a,valid", "2.png,a,DEV", "3.png,a,testing")
    table = write_table(tmp_path / "t.csv", "\n".join(("path,label,split", *rows)))
    assert [side for _, _, side in listing(table)] == ["train", "val", "val", "test"]


def test_two_spellings_of_a_label_in_a_table_are_one(tmp_path: Path) -> None:
    write_images(tmp_path, "0.png", "1.png")
    table = write_table(tmp_path / "t.csv", "path,label\n0.png,caf\u00e9\n1.png,cafe\u0301\n")
    assert {label for _, label, _ in listing(table)} == {"caf\u00e9"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv is empty; expected a header with the columns path and label"),
        ("\nwhere,label\n", "line 2: the columns are where, label; expected path and label"),
        ("path label\n", "line 1: the columns are path label; expected path and label"),
        (
            "1.png;what?\n",
            r"line 1: the columns are 1\.png, what\?; .* --columns path=COLUMN,label=",
        ),
        ("path,kind\n", "line 1: the columns are path, kind;"),
        ("path,label,label\n", "line 1: the columns are path, label, label; .* once each"),
        ("path,label\n1.png,a\n\n2.png,b\n", r"line 4: there is no file '2\.png' in "),
        ("path,label\n,a\n", "line 2: there is no file '' in "),
        ("path,label\n1.png, \n", "line 2: the label is empty"),
        ("path,label\n1.png\n", "line 2: 1 cells; expected 2, as in the header"),
        ("path,label\n1.png,a,b\n", "line 2: 3 cells; expected 2"),
        ("path,label,split\n1.png,a,tent\n", "line 2: the split is 'tent'; expected train, val or"),
        ("path,label,split\n1.png,a,my test\n", "line 2: the split is 'my test'; expected"),
        ("path,label,split\n1.png,a,\n", "line 2: the split is ''; expected train, val or test"),
        ("path,label\n1.png,a\n1.png,b\n", r"line 3: '1\.png' stands on line 2 already"),
        ("path,label\n1.png,a\nx/../1.png,b\n", r"line 3: 'x/\.\./1\.png' stands on line 2"),
        ('path,label\n1.png,"a\n', "line 2: unexpected end of data"),
    ],
)
def test_broken_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    write_images(tmp_path, "1.png", "x/2.png")
    with pytest.raises(DataError, match=message):
        read_source(write_table(tmp_path / "t.csv", text))


def test_table_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv cannot be read: No such file"):
        read_source(tmp_path / "no.csv")


def test_table_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match="is not UTF-8 text: line 2 has the byte 0xff"):
        read_source(tmp_path / "t.csv")


def test_digits_are_scans_in_8_bits() -> None:
    from sklearn.datasets import load_digits

    source = read_source("sklearn:digits")
    digits = load_digits()
    assert source.default_train_images == 300
    assert [picture.label for picture in source.pictures] == [str(t) for t in digits.target]
    assert source.pictures[1796].name == "digits/1796"
    assert {picture.side for picture in source.pictures} == {None}
    image = source.pictures[7].image
    assert isinstance(image, np.ndarray)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[:, :, 2] / 255 * 16, digits.images[7], atol=0.5 * 16 / 255)
    assert image.max() == 255


def test_digits_as_a_path_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_source(Path("sklearn:digits"))


def test_glyphs_of_a_side_or_seed_are_in_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "GLYPH_TRAIN_IMAGES", 38)
    monkeypatch.setattr(generated, "GLYPH_VAL_IMAGES", 38)
    seen: set[bytes] = set()
    for seed in (0, 1):
        pictures = read_source("glyphs:greek", seed=seed).pictures
        for side in ("train", "val"):
            part = [picture for picture in pictures if picture.side == side]
            assert [picture.name for picture in part] == [f"glyphs/{side}/{i}" for i in range(38)]
            assert {picture.label for picture in part} == set(SCRIPTS["greek"])
            seen |= {np.asarray(picture.image).tobytes() for picture in part}
    assert len(seen) == 4 * 38


def test_glyphs_are_the_same_for_a_seed_and_labelled_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generated, "GLYPH_VAL_IMAGES", 20)
    pictures = read_source("glyphs:greek", seed=3, train_images=25).pictures
    images, targets = render_glyphs(
        SCRIPTS["greek"], count=25, size=generated.GLYPH_SIZE_PX, seed=6
    )
    assert [p.label for p in pictures[:25]] == [SCRIPTS["greek"][target] for target in targets]
    assert np.array_equal(np.stack([np.asarray(p.image) for p in pictures[:25]]), images)
    assert [p.side for p in pictures] == ["train"] * 25 + ["val"] * 20


def test_unknown_script_lists_the_scripts() -> None:
    with pytest.raises(DataError, match=r"no script 'runes' .* expected one of armenian, .*latin"):
        read_source("glyphs:runes")


def test_long_lists_are_cut_and_counted() -> None:
    assert name_some([]) == "none"
    assert name_some(["a", "b"]) == "a, b"
    assert name_some([str(n) for n in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert name_some(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert name_some(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
