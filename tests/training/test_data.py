from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from torch.nn import Identity

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import DataError, InputError, UnreadableImageError
from gatehub.training.data import ImageData, list_data, load_data
from gatehub.training.sources import generated
from gatehub.training.sources.glyphs import SCRIPTS
from tests.training.images import numbered, write_images

# With seed 7 and two fifths to validate on, of a/0.png..a/4.png and b/0.png..b/4.png.
GOLDEN = ("a/1.png", "a/4.png", "b/1.png", "b/2.png")


def damage(path: Path) -> None:
    """Cut the file in half: the header stays, the pixels end too early."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def everything(data: ImageData) -> tuple[object, ...]:
    sides = [(side.names, side.targets) for side in (data.train, data.val)]
    return (sides, data.labels, data.source, data.skipped)


def test_split_folder(tmp_path: Path) -> None:
    write_images(tmp_path, "train/b/1.png", "train/a/2.png", "val/a/3.png", "val/b/4.png")
    data = load_data(tmp_path)
    assert data.labels == ("a", "b")
    assert data.train.names == ("train/a/2.png", "train/b/1.png")
    assert data.train.targets == (0, 1)
    assert data.val.names == ("val/a/3.png", "val/b/4.png")
    assert data.val.targets == (0, 1)
    assert (data.source, data.skipped) == (str(tmp_path), ())
    image = data.train.image(1)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 4), (0, 0, 90))


def test_folder_to_be_split_is_split_the_same_everywhere(tmp_path: Path) -> None:
    write_images(tmp_path / "x", *numbered("a", 5), *numbered("b", 5))
    write_images(tmp_path / "y", *reversed(numbered("b", 5)), *reversed(numbered("a", 5)))
    data = load_data(tmp_path / "x", seed=7, val_fraction=0.4)
    assert data.val.names == GOLDEN
    assert data.val.targets == (0, 0, 1, 1)
    assert len(data.train) == 6
    assert not set(data.train.names) & set(data.val.names)
    assert load_data(str(tmp_path / "y"), seed=7, val_fraction=0.4).val.names == GOLDEN
    assert load_data(tmp_path / "x", seed=8, val_fraction=0.4).val.names != GOLDEN


def test_recorded_settings_give_the_split_again(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 9), *numbered("b", 9))
    data = load_data(tmp_path, seed=4, val_fraction=0.5, train_images=6)
    assert everything(load_data(data.source, **data.split)) == everything(data)


def test_table(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 4))
    table = tmp_path / "t.csv"
    table.write_text(
        "path,label,split\na/0.png,x,train\na/1.png,y,train\na/2.png,y,val\na/3.png,x,val\n"
    )
    data = load_data(table)
    assert (data.train.targets, data.val.targets) == ((0, 1), (1, 0))
    assert data.val.image(0).getpixel((0, 0)) == (2, 0, 90)


def test_a_test_side_is_kept_apart(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("Training/a", 5), *numbered("Training/b", 5))
    write_images(tmp_path, *numbered("Testing/b", 3))
    listing = list_data(tmp_path, seed=3)
    assert listing.notes[-1] == "Validation: 20 % of the images to train on, held out by seed 3."
    data = listing.decode()
    assert (len(data.train), len(data.val)) == (8, 2)
    assert data.test.names == tuple(numbered("Testing/b", 3))
    assert data.test.targets == (1, 1, 1)
    assert load_data(tmp_path, seed=3, train_images=4).test.names == data.test.names


def test_test_images_of_a_class_that_nobody_learns(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{number}.png" for number in range(4)))
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\n0.png,a,train\n1.png,b,train\n2.png,c,test\n")
    with pytest.raises(DataError, match="test images of classes that it has no others of: c"):
        load_data(table)


def test_the_smallest_and_the_largest_image_are_known(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 3), *numbered("b", 3))
    Image.new("RGB", (9, 2)).save(tmp_path / "a" / "wide.png")
    Image.new("RGB", (2, 5)).save(tmp_path / "a" / "high.png")
    assert load_data(tmp_path).extremes == ((2, 5), (9, 2))
    assert load_data("sklearn:digits").extremes == ((8, 8), (8, 8))


def test_digits_train_on_300_by_default() -> None:
    data = load_data("sklearn:digits", seed=1)
    assert data.labels == tuple("0123456789")
    assert (len(data.train), len(data.val)) == (300, 1497)
    assert all(28 <= data.train.targets.count(target) <= 32 for target in range(10))
    image = data.val.image(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert everything(data) == everything(load_data("sklearn:digits", seed=1))
    more = load_data("sklearn:digits", train_images=1000)
    assert (len(more.train), len(more.val)) == (1000, 797)


def test_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "GLYPH_VAL_IMAGES", 20)
    data = load_data("glyphs:cyrillic", seed=2, train_images=36)
    assert data.labels == tuple(sorted(SCRIPTS["cyrillic"]))
    assert (len(data.train), len(data.val)) == (36, 20)
    assert sorted(data.train.targets) == sorted([*range(18), *range(18)])
    image = data.val.image(0)
    assert (image.mode, image.size) == ("RGB", (generated.GLYPH_SIZE_PX, generated.GLYPH_SIZE_PX))


def test_unreadable_images_stop_the_run(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 5), *numbered("b", 5))
    damage(tmp_path / "a" / "3.png")
    (tmp_path / "b" / "0.png").write_bytes(b"")
    (tmp_path / "b" / "2.png").unlink()
    (tmp_path / "b" / "2.png").symlink_to("nowhere.png")
    expected = (
        f"3 of the 10 images of {tmp_path} cannot be used: a/3.png, b/0.png, b/2.png. "
        f"The first: '{tmp_path}/a/3.png' cannot be decoded"
    )
    with pytest.raises(UnreadableImageError, match=re.escape(expected)) as caught:
        load_data(tmp_path)
    assert "skip_bad" in str(caught.value.hint)


def test_only_the_first_ten_unreadable_images_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 14), *numbered("b", 2))
    for name in numbered("a", 12):
        damage(tmp_path / name)
    with pytest.raises(UnreadableImageError, match=r"^12 of the 16 .*a/7\.png and 2 more\. The"):
        load_data(tmp_path)


def test_images_too_large_to_decode_are_unreadable(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 2), *numbered("b", 2))
    Image.new("1", (8000, 8000)).save(tmp_path / "b" / "huge.png")
    with pytest.raises(UnreadableImageError, match=r"b/huge\.png\. The first: .* 8000 x 8000"):
        load_data(tmp_path)


def test_images_that_would_become_too_large_are_unreadable(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 3), *numbered("b", 3))
    Image.new("1", (1, 10_000)).save(tmp_path / "b" / "line.png")
    preprocessing = Preprocessing.from_model(Identity())
    sentence = r"b/line\.png\. The first: .* 1 x 10000 pixels and would be resized to 256 x 2560000"
    with pytest.raises(UnreadableImageError, match=sentence):
        load_data(tmp_path, preprocessing=preprocessing)
    assert load_data(tmp_path, preprocessing=preprocessing, skip_bad=True).skipped == (
        "b/line.png",
    )


def test_images_that_an_older_adapter_refuses_are_unreadable(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 3), *numbered("b", 3))
    Image.new("I;16", (4, 4)).save(tmp_path / "b" / "deep.png")
    newest = Preprocessing.from_model(Identity())
    load_data(tmp_path, preprocessing=newest)
    with pytest.raises(UnreadableImageError, match="more than 8 bits per channel"):
        load_data(tmp_path, preprocessing=replace(newest, image_rules=None))


def test_skipped_images_are_left_out_and_listed(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 5), *numbered("b", 5))
    damage(tmp_path / "a" / "3.png")
    damage(tmp_path / "b" / "1.png")
    data = load_data(tmp_path, skip_bad=True)
    assert data.skipped == ("a/3.png", "b/1.png")
    names = {*data.train.names, *data.val.names}
    assert names == {*numbered("a", 5), *numbered("b", 5)} - set(data.skipped)
    for side in (data.train, data.val):
        assert all(side.image(index).size == (4, 4) for index in range(len(side)))


def test_class_left_without_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 3), *numbered("b", 2))
    damage(tmp_path / "b" / "0.png")
    with pytest.raises(DataError, match=r"\(without 1 unreadable images\) has too few .* b \(1\)"):
        load_data(tmp_path, skip_bad=True)
    damage(tmp_path / "b" / "1.png")
    with pytest.raises(DataError, match=r"b \(0\); expected at least 2 of each class"):
        load_data(tmp_path, skip_bad=True)


def test_side_left_without_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png")
    damage(tmp_path / "val" / "b" / "1.png")
    with pytest.raises(DataError, match="has no val images of: b"):
        load_data(tmp_path, skip_bad=True)


def test_no_image_left_at_all(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 2), *numbered("b", 2))
    for name in (*numbered("a", 2), *numbered("b", 2)):
        damage(tmp_path / name)
    with pytest.raises(DataError, match=r"a \(0\), b \(0\)"):
        load_data(tmp_path, skip_bad=True)


def test_progress_counts_every_file_once(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 300), *numbered("b", 300))
    seen: list[tuple[int, int]] = []
    load_data(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 600) for done in range(1, 601)]


def test_classes_are_checked_before_any_file_is_decoded(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 3), "b/0.png")
    damage(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match=r"too few images to split of: b \(1\)"):
        load_data(tmp_path)


def test_image_that_goes_bad_later_is_an_input_error(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("a", 2), *numbered("b", 2))
    data = load_data(tmp_path)
    damage(tmp_path / data.train.names[0])
    with pytest.raises(InputError, match=r"cannot be decoded"):
        data.train.image(0)


def test_single_class_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, *numbered("cat", 3))
    with pytest.raises(DataError, match="holds a single class, 'cat'; expected at least 2"):
        load_data(tmp_path)


def test_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"t\.csv holds no images; expected some"):
        load_data(tmp_path / "t.csv")


@pytest.mark.parametrize("source", ["folder", "sklearn:digits", "glyphs:greek"])
def test_training_images_must_cover_the_classes(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "GLYPH_TRAIN_IMAGES", 19)
    monkeypatch.setattr(generated, "GLYPH_VAL_IMAGES", 19)
    write_images(tmp_path, *numbered("a", 4), *numbered("b", 4))
    with pytest.raises(DataError, match="1 training images are too few for the"):
        load_data(tmp_path if source == "folder" else source, train_images=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"val_fraction": 0.0}, "validation fraction is 0.0; expected above 0 and below 1"),
        ({"val_fraction": 1.0}, "validation fraction is 1.0; expected above 0 and below 1"),
        ({"val_fraction": float("nan")}, "validation fraction is nan"),
        ({"train_images": 0}, "training images is 0; expected 1 or more"),
        ({"train_images": 1790}, "has 1787 images to train on; expected the 1790 asked for"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data("sklearn:digits", **settings)  # type: ignore[arg-type]


def test_a_sample_holds_every_class_in_proportion() -> None:
    val = load_data("sklearn:digits").val
    sample = val.sample(100, seed=3)
    assert len(sample) == 100
    assert all(8 <= sample.targets.count(digit) <= 12 for digit in range(10))
    assert sample.names == val.sample(100, seed=3).names != val.sample(100, seed=4).names
    places = [val.names.index(name) for name in sample.names]
    assert places == sorted(places)
    assert all(val.targets[i] == t for i, t in zip(places, sample.targets, strict=True))
    assert val.sample(5000, seed=3) is val
