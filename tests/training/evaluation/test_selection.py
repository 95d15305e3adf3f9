"""Which images are measured: all that is given, and of the training's own those held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import DataError, LabelMismatchError, UnreadableImageError
from gatehub.problem import Problem
from gatehub.training.data import load_data
from gatehub.training.evaluation.selection import Selection, select_images
from gatehub.training.report import recorded_settings
from gatehub.training.sources import Source, read_source, takes_columns
from gatehub.training.sources.tables.columns import write_columns
from tests.tiny import make_trained
from tests.training.images import numbered, write_images

Trained = Callable[..., Adapter]


@pytest.fixture(scope="session")
def trained(tiny_backbone: Backbone) -> Trained:
    """Makes an adapter as if it had been trained on a source."""

    def make(source: str | Path, **options: object) -> Adapter:
        data = load_data(source, **options)  # type: ignore[arg-type]
        model = make_trained(tiny_backbone, labels=data.labels, gates="scale")
        return Adapter.from_model(
            model, task="pets", training=recorded_settings(data, data.digests())
        )

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", *numbered("cat", 20), *numbered("dog", 20))


def counts(selected: Selection) -> tuple[str, int, int | None]:
    return selected.split, len(selected.examples), selected.trained


@pytest.mark.parametrize(
    ("names", "images"),
    [
        (numbered("cat", 1) + numbered("dog", 1), 2),
        (numbered("dog", 1), 1),
        (numbered("val/cat", 1) + numbered("val/dog", 2), 3),
        (numbered("test/cat", 2) + numbered("test/dog", 2), 4),
        (numbered("train/cat", 1) + numbered("train/dog", 1) + numbered("val/dog", 2), 4),
        (numbered("train/cat", 1) + numbered("val/dog", 2) + numbered("test/dog", 2), 5),
        (numbered("cat", 15) + numbered("dog", 15), 30),
    ],
)
def test_rules_for_training_do_not_hold_for_measuring(
    trained: Trained, photos: Path, tmp_path: Path, names: list[str], images: int
) -> None:
    adapter = trained(photos, train_images=35, val_fraction=0.1)
    fresh = write_images(tmp_path / "fresh", *names)
    assert counts(select_images(adapter, str(fresh))) == ("all", images, None)


def test_a_class_without_images_is_no_fault_of_a_test_set(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    fresh = write_images(tmp_path / "fresh", *numbered("dog", 3))
    (fresh / "cat").mkdir()
    assert counts(select_images(trained(photos), str(fresh))) == ("all", 3, None)
    table = tmp_path / "table.csv"
    table.write_text("path,label,split\nfresh/dog/1.png,dog,val\n")
    assert counts(select_images(trained(photos), str(table))) == ("all", 1, None)


def test_labels_are_compared_in_one_spelling(tiny_backbone: Backbone, tmp_path: Path) -> None:
    model = make_trained(tiny_backbone, labels=("a", "be\u0301"), gates="scale")
    adapter = Adapter.from_model(model, task="pets")
    fresh = write_images(tmp_path / "fresh", *numbered("b\u00e9", 2))
    assert select_images(adapter, str(fresh)).examples.targets == (1, 1)


def test_targets_index_into_the_adapters_labels(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    fresh = write_images(tmp_path / "fresh", *numbered("dog", 3))
    assert select_images(trained(photos), str(fresh)).examples.targets == (1, 1, 1)


def test_an_order_of_classes_is_the_adapters_own(trained: Trained, photos: Path) -> None:
    (photos / "classes.txt").write_text("dog\ncat\n")
    adapter = trained(photos)
    assert adapter.labels == ("dog", "cat")
    assert counts(select_images(adapter, str(photos))) == ("val", 8, 0)
    for file in ("cat\ndog\nhorse\n", None):  # one for other classes, and none
        if file is None:
            (photos / "classes.txt").unlink()
        else:
            (photos / "classes.txt").write_text(file)
        selected = select_images(adapter, str(photos))
        assert counts(selected) == ("val", 8, 0)
        assert selected.examples.targets == (1,) * 4 + (0,) * 4


def test_what_it_was_trained_on_is_divided_as_then(trained: Trained, photos: Path) -> None:
    adapter = trained(photos, seed=3, val_fraction=0.3)
    data = load_data(photos, seed=3, val_fraction=0.3)
    held_out = select_images(adapter, str(photos))
    assert counts(held_out) == ("val", 12, 0)
    assert held_out.examples.names == data.val.names
    assert held_out.remark is None
    for split, images, known in (("train", 28, 28), ("all", 40, 28), ("val", 12, 0)):
        assert counts(select_images(adapter, str(photos), split=split)) == (split, images, known)
    remark = select_images(adapter, str(photos), split="all").remark
    assert remark is not None
    assert "28 of these images trained 'pets'" in remark


def test_the_same_data_may_lie_elsewhere(
    trained: Trained, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = trained(photos)
    elsewhere = photos.parent / "other" / "photos"
    elsewhere.parent.mkdir()
    photos.rename(elsewhere)
    monkeypatch.chdir(elsewhere.parent)
    for source in (str(elsewhere), "photos", "photos/", "./photos"):
        assert counts(select_images(adapter, source)) == ("val", 8, 0)


def test_data_that_has_grown_is_said_to(trained: Trained, photos: Path) -> None:
    adapter = trained(photos)
    write_images(photos, "cat/new.png")
    grown = select_images(adapter, str(photos))
    assert counts(grown) == ("all", 41, None)
    assert grown.remark is not None
    assert "bears the name of what 'pets' was trained on (32 images and 8 held out)" in grown.remark
    with pytest.raises(DataError, match="no telling which are val images") as refused:
        select_images(adapter, str(photos), split="val")
    assert "Leave --split out" in str(refused.value)


def test_a_split_that_is_asked_for(trained: Trained, photos: Path, tmp_path: Path) -> None:
    adapter = trained(photos)
    sides = write_images(
        tmp_path / "sides",
        *numbered("train/cat", 3),
        *numbered("train/dog", 3),
        *numbered("val/cat", 1),
        *numbered("val/dog", 1),
    )
    assert counts(select_images(adapter, str(sides))) == ("all", 8, None)
    assert counts(select_images(adapter, str(sides), split="val")) == ("val", 2, None)
    with pytest.raises(DataError, match=r"has no test images; it has train \(6\), val \(2\)"):
        select_images(adapter, str(sides), split="test")


def test_images_are_known_whatever_their_folder_is_called(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    adapter = trained(photos)
    photos.rename(tmp_path / "renamed")
    renamed = str(tmp_path / "renamed")
    assert counts(select_images(adapter, renamed)) == ("val", 8, 0)
    # An adapter of an earlier version knows names and numbers alone.
    training = {
        k: v for k, v in adapter.config.training.items() if k not in ("train_digest", "val_digest")
    }
    older = replace(adapter, config=replace(adapter.config, training=training))
    assert counts(select_images(older, renamed)) == ("all", 40, None)
    assert counts(select_images(older, renamed, split="val")) == ("val", 8, None)


def test_other_images_under_the_same_names_are_told_apart(trained: Trained, photos: Path) -> None:
    adapter = trained(photos)
    before = (photos / "cat" / "7.png").read_bytes()
    (photos / "cat" / "7.png").write_bytes(before[:-1] + b"?")  # as a camera's BMP: as many bytes
    changed = select_images(adapter, str(photos))
    assert counts(changed) == ("all", 40, None)
    assert changed.remark is not None
    assert "some of them may have trained it" in changed.remark


@pytest.mark.parametrize("source", ["sklearn:digits", "glyphs:symbols"])
def test_generated_images_are_those_of_the_training(trained: Trained, source: str) -> None:
    adapter = trained(source, seed=3, train_images=120)
    selected = select_images(adapter, source)
    data = load_data(source, seed=3, train_images=120)
    assert counts(selected) == ("val", len(data.val), 0)
    assert all(
        (one == other).all()  # type: ignore[union-attr]
        for one, other in zip(selected.examples.sources, data.val.sources, strict=True)
    )
    assert counts(select_images(adapter, source, split="all"))[2] == 120


def test_other_data_is_not_rendered_by_the_settings_of_the_training(
    trained: Trained, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def read(source: str, **options: object) -> Source:
        asked.append(options["train_images"])
        return read_source(source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("gatehub.training.evaluation.selection.read_source", read)
    adapter = trained(photos, train_images=12)
    select_images(adapter, str(photos))
    with pytest.raises(LabelMismatchError):
        select_images(adapter, "glyphs:symbols")
    assert asked == [12, None]


def test_a_third_split(trained: Trained, photos: Path) -> None:
    for name in ("cat", "dog"):
        write_images(photos / "test", *numbered(name, 3))
        (photos / "train").mkdir(exist_ok=True)
        (photos / name).rename(photos / "train" / name)
    adapter = trained(photos)
    data = load_data(photos)
    assert counts(select_images(adapter, str(photos))) == ("val", 8, 0)
    assert select_images(adapter, str(photos)).examples.names == data.val.names
    assert counts(select_images(adapter, str(photos), split="test")) == ("test", 6, 0)
    assert counts(select_images(adapter, str(photos), split="all")) == ("all", 46, 32)


def test_an_adapter_that_remembers_nothing(tiny_adapter: Adapter, tmp_path: Path) -> None:
    fresh = write_images(tmp_path / "fresh", *numbered("crow", 2), *numbered("jay", 1))
    assert counts(select_images(tiny_adapter, str(fresh))) == ("all", 3, None)


def test_a_class_that_the_adapter_lacks_is_named(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    fresh = write_images(tmp_path / "fresh", *numbered("cat", 2), *numbered("cow", 1))
    with pytest.raises(LabelMismatchError, match="has the class 'cow', which the adapter lacks"):
        select_images(trained(photos), str(fresh))


def test_bad_images_are_named_or_left_out(trained: Trained, photos: Path, tmp_path: Path) -> None:
    adapter = trained(photos)
    fresh = write_images(tmp_path / "fresh", *numbered("cat", 2), *numbered("dog", 1))
    (fresh / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"dog/0\.png"):
        select_images(adapter, str(fresh))
    left = select_images(adapter, str(fresh), skip_bad=True)
    assert (counts(left), left.skipped) == (("all", 2, None), ("dog/0.png",))
    for name in numbered("cat", 2):
        (fresh / name).write_bytes(b"no image")
    with pytest.raises(DataError, match="None of the 3 images"):
        select_images(adapter, str(fresh), skip_bad=True)


def test_a_part_of_what_it_was_trained_on_is_known(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    sides = (*numbered("train/cat", 6), *numbered("train/dog", 6), *numbered("val/cat", 2))
    whole = write_images(tmp_path / "whole", *sides, *numbered("val/dog", 2))
    adapter = trained(whole)
    learned = select_images(adapter, str(whole / "train"))
    assert counts(learned) == ("all", 12, 12)
    assert learned.remark is not None
    assert counts(select_images(adapter, str(whole / "val"))) == ("all", 4, 0)
    Image.new("RGB", (4, 4), "white").save(whole / "val" / "dog" / "1.png")
    assert counts(select_images(adapter, str(whole / "val"))) == ("all", 4, None)


def test_columns_that_were_named_for_the_training_need_no_name_again(
    trained: Trained, photos: Path
) -> None:
    """They are in the adapter; a table without them is read by usual names, and a name wins."""
    names = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(20)]
    rows = [f"{name},{name[:3]},{'dog' if 'cat' in name else 'cat'}" for name in names]
    table = photos / "table.csv"
    table.write_text("\n".join(["what, kind of, label", *rows]))
    adapter = trained(table, columns={"path": "what", "label": "kind of"})

    def right(**options: object) -> int:
        selected = select_images(adapter, str(table), split="all", **options)  # type: ignore[arg-type]
        found = zip(selected.examples.names, selected.examples.targets, strict=True)
        return sum(adapter.labels[target] == name[:3] for name, target in found)

    assert counts(select_images(adapter, str(table))) == ("val", 8, 0)
    assert right() == 40
    assert right(columns={"path": "what", "label": "label"}) == 0
    assert counts(select_images(adapter, str(photos))) == ("val", 8, 0)
    table.write_text("path,label\ncat/1.png,dog\n")
    assert counts(select_images(adapter, str(table))) == ("all", 1, None)


def test_columns_of_labels_that_were_named_need_no_name_again(
    tiny_adapter: Adapter, tmp_path: Path
) -> None:
    write_images(tmp_path, *numbered("x", 2))
    table = tmp_path / "t.csv"
    labels = tiny_adapter.labels[:2]
    rows = [f"what,{labels[0]},{labels[1]},blurred", "x/0.png,1,1,0", "x/1.png,0,0,1"]
    table.write_text("\n".join(rows))
    columns = {"path": "what", "label": "|".join(labels)}
    training = {"columns": write_columns(columns)}
    problem = Problem(thresholds=(0.5,) * len(tiny_adapter.labels))
    config = replace(tiny_adapter.config, training=training, problem=problem)
    adapter = replace(tiny_adapter, config=config)
    selected = select_images(adapter, str(table))
    assert selected.examples.targets == ((0, 1), ())
    assert takes_columns(table, columns, multi_label=True)
    assert not takes_columns(table, columns)
    assert not takes_columns(table, {**columns, "label": f"{labels[0]}|other"}, multi_label=True)
    assert takes_columns(table, {"path": "what"}, multi_label=True)


@pytest.mark.parametrize("columns", ["x", "[1]", '{"path": 7}', '{"other": "x"}', 7, None])
def test_columns_that_are_none_are_not_taken(
    trained: Trained, photos: Path, columns: object
) -> None:
    adapter = trained(photos)
    training = {**adapter.config.training, "columns": columns}
    edited = replace(adapter, config=replace(adapter.config, training=training))
    assert counts(select_images(edited, str(photos))) == ("val", 8, 0)


def test_several_tables_are_known_in_any_order_and_place(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    tables = [photos / "cats.csv", photos / "dogs.csv"]
    for table in tables:
        name = table.stem[:3]
        rows = [f"{path},{name}\n" for path in numbered(name, 20)]
        table.write_text("path,label\n" + "".join(rows))
    adapter = trained(tables)
    assert counts(select_images(adapter, tables)) == ("val", 8, 0)
    moved = photos.rename(tmp_path / "moved")
    again = [str(moved / table.name) for table in reversed(tables)]
    assert counts(select_images(adapter, again)) == ("val", 8, 0)
    one = select_images(adapter, again[0])
    assert counts(one) == ("all", 20, None)
    assert one.remark is None  # it is called otherwise
    (moved / "cat" / "0.png").unlink()
    (moved / "cats.csv").write_text((moved / "cats.csv").read_text().replace("cat/0.png,cat\n", ""))
    grown = select_images(adapter, again)
    assert counts(grown) == ("all", 39, None)
    assert "dogs.csv, " in str(grown.remark)
    assert "bears the name of what 'pets' was trained on (32 images and 8" in str(grown.remark)
