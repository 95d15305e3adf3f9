"""eval and predict where an image may have any number of labels, or none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from gatehub.adapter._fields import is_text
from gatehub.cli.answers._predictions import write_label_sets
from gatehub.training.objectives import MultiLabelEvaluation
from gatehub.training.sources import read_source
from gatehub.training.sources.pictures import spell_label
from gatehub.training.sources.tables.label_sets import join_labels
from tests.cli.answers.conftest import save_adapter
from tests.cli.conftest import Gatehub

LABELS = ["a", "b", "c"]
SETS = ["a", "ab", "", "b", "abc"[:2], "a", "", "b", "ab", "a", "b", ""]  # nothing has c


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of twelve images."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    rows = ["path,labels"]
    for number, own in enumerate(SETS):
        pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels // (1 + number % 4)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'|'.join(own)}")
    (folder / "t.csv").write_text("\n".join(rows))
    return folder / "t.csv"


@pytest.fixture(scope="module")
def lights(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The task "lights", with thresholds that some scores reach: found by its own answers."""
    return save_adapter(
        tmp_path_factory.mktemp("adapter") / "lights", LABELS, thresholds=[0.5, 0.0, 1.0]
    )


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_eval_says_of_each_label_how_well_it_is_found(
    gatehub: Gatehub, lights: Path, photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "answers.csv"
    ran = gatehub("eval", lights, "--data", photos, "--predictions", table, "--format", "json")
    shown, rows = ran.json, read(table)
    assert list(rows[0]) == ["path", "labels", "predicted", *(f"score:{c}" for c in LABELS)]
    assert [row["path"] for row in rows] == [f"{number}.png" for number in range(12)]
    assert [row["labels"] for row in rows] == ["|".join(own) for own in SETS]
    truth = np.array([[c in row["labels"] for c in LABELS] for row in rows])
    said = np.array([[c in row["predicted"] for c in LABELS] for row in rows])
    scores = np.array([[float(row[f"score:{c}"]) for c in LABELS] for row in rows])
    assert (said == (scores >= [0.5, 0.0, 1.0])).all()
    assert said[:, 1].all()
    assert not said[:, 2].any()
    assert (shown["problem"], shown["images"], shown["split"]) == ("multi-label", 12, "all")
    assert shown["accuracy"] == (truth == said).all(1).mean()
    for score, name in ((precision_score, "precision"), (recall_score, "recall"), (f1_score, "f1")):
        each = score(truth, said, average=None, zero_division=0)
        assert [found[name] or 0 for found in shown["labels"]] == pytest.approx(each)
        assert shown[f"macro_{name}"] == pytest.approx(each[:2].mean())
        assert shown[f"micro_{name}"] == pytest.approx(score(truth, said, average="micro"))
    precisions = [average_precision_score(truth[:, i], scores[:, i]) for i in range(2)]
    found = [label["average_precision"] for label in shown["labels"]]
    assert found[:2] == pytest.approx(precisions)
    assert found[2] is None
    assert shown["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert [label["threshold"] for label in shown["labels"]] == [0.5, 0.0, 1.0]
    assert [label["images"] for label in shown["labels"]] == [6, 6, 0]

    told = gatehub("eval", lights, "--data", photos)
    lines = {line.split()[0]: line.split() for line in told.out.splitlines() if line}
    assert lines["c"] == ["c", "0", "0", "-", "-", "-", "-", "1.00"]
    assert f"All labels right for {100 * shown['accuracy']:.1f} % of 12 images" in told.out
    quiet = gatehub("eval", lights, "--data", photos, "--format", "quiet").out
    assert quiet.strip() == f"{shown['mean_average_precision']:.6f}"


def test_labels_that_the_training_did_not_know_are_not_known_to_eval_either(
    gatehub: Gatehub, photos: Path, tmp_path: Path
) -> None:
    """Else an adapter that went on from another would seem worse than its training said."""
    old = save_adapter(tmp_path / "old", LABELS, thresholds=[0.5, 0.5, 0.0])
    options = ("--backbone", "demo", "--data", photos, "--multi-label", "--task", "lights")
    out, table = tmp_path / "new", tmp_path / "answers.csv"
    ran = gatehub(
        *("train", *options, "--init-from", old, "--epochs", 0, "--val-fraction", 0.5),
        *("--out", out, "--format", "json"),
    )
    shown = gatehub("eval", out, "--data", photos, "--predictions", table, "--format", "json")
    figures = ("accuracy", "micro_f1", "macro_f1", "mean_average_precision")
    assert {name: shown.json[name] for name in figures} == {
        name: ran.json[name] for name in figures
    }
    assert "No image has: c. As in the training, whether" in " ".join(shown.err.split())
    assert all("c" in row["predicted"] for row in read(table))  # answers are what they are

    shown = gatehub("eval", old, "--data", photos)
    assert "No image has: c. They count as absent, so" in " ".join(shown.err.split())


def test_a_table_of_labels_fits_a_terminal(gatehub: Gatehub, photos: Path, tmp_path: Path) -> None:
    labels = ["a", "b", f"{'x' * 19} {'y' * 19}", f"{'x' * 24}1", "\u68a8" * 15]
    adapter = save_adapter(tmp_path / "long", labels, thresholds=[0.5] * 5)
    for columns in ("100", "1000"):
        ran = gatehub("eval", adapter, "--data", photos, env={"COLUMNS": columns})
        lines = ran.out.splitlines()
        assert max(map(cell_len, lines)) <= 100
        assert sum(line[-4:] == "0.50" for line in lines) == 5


def test_eval_refuses_what_makes_no_sense_of_label_sets(
    gatehub: Gatehub, lights: Path, adapter: Path, photos: Path, tmp_path: Path
) -> None:
    ran = gatehub("eval", lights, "--data", photos, "--confusion", tmp_path / "c.png")
    assert ran.status == 2
    assert "no confusion matrix" in " ".join(ran.err.replace("│", " ").split())
    ran = gatehub("eval", lights, "--data", photos.parent)
    assert ran.status == 1
    assert "cannot have several labels for an image: a folder" in ran.err
    ran = gatehub("eval", adapter, "--data", photos)  # of one label an image
    assert ran.status == 1
    assert "the adapter does not fit: it gives one label an image" in ran.err


def test_predict_shows_every_label_that_reaches_its_threshold(
    gatehub: Gatehub, lights: Path, photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "answers.csv"
    gatehub("eval", lights, "--data", photos, "--predictions", table)
    rows = read(table)
    image = photos.with_name("0.png")
    [answer] = gatehub("predict", lights, image, "--format", "json").json["images"]
    scores = {c: float(rows[0][f"score:{c}"]) for c in LABELS}
    found = {each["label"]: each["score"] for each in answer["predictions"]}
    assert "|".join(sorted(found)) == rows[0]["predicted"]
    assert found == pytest.approx({c: scores[c] for c in found}, abs=0.02)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    [answer] = gatehub("predict", lights, image, "--top-k", "3", "--format", "json").json["images"]
    assert {each["label"] for each in answer["predictions"]} == set(LABELS)
    quiet = gatehub("predict", lights, image, "--format", "quiet").out
    assert quiet == "|".join(found) + "\n"


def test_an_image_without_a_label_is_an_answer(
    gatehub: Gatehub, photos: Path, adapter: Path, tmp_path: Path
) -> None:
    nothing = save_adapter(tmp_path / "nothing", LABELS, thresholds=[1.0] * 3)
    image = photos.with_name("0.png")
    ran = gatehub("predict", nothing, image, "--format", "json")
    assert ran.json["images"] == [{"image": str(image), "predictions": []}]
    assert gatehub("predict", nothing, image, "--format", "quiet").out == "\n"
    assert gatehub("predict", nothing, image).out.splitlines()[-1].split()[-1] == "-"
    out = tmp_path / "a.csv"
    assert gatehub("predict", nothing, adapter, image, "--out", out).status == 0
    rows = read(out)
    assert rows[0] == {
        "path": str(image),
        "task": "nothing",
        "rank": "",
        "label": "",
        "score": "",
        "error": "",
    }
    assert (rows[1]["task"], rows[1]["rank"]) == ("marks", "1")
    lines = tmp_path / "a.jsonl"
    gatehub("predict", nothing, adapter, image, "--out", lines)
    told = json.loads(lines.read_text())
    assert told["predictions"]["nothing"] == []
    assert len(told["predictions"]["marks"]) == 1


# What an adapter may have for a label, spelled as a training spells it.
NAMES = (
    st.one_of(
        st.text("ab|;, [('\"", min_size=1, max_size=4),
        st.sampled_from(
            ["a|b", "a", "b", "[a]", "['a', 'b']", "traffic light", "1", "true", "set("]
        ),
        st.text(min_size=1, max_size=6).filter(is_text),
    )
    .map(spell_label)
    .map(str.strip)
    .filter(bool)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), labels=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_what_eval_wrote_is_read_as_a_table_again(
    tmp_path: Path, data: st.DataObject, labels: list[str]
) -> None:
    """Whatever signs the labels hold, and whichever of them an image has."""
    flags = st.lists(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    targets = data.draw(flags.filter(lambda rows: 0 < len(rows) < 5))
    names = [f"{number}.png" for number in range(len(targets))]
    for name in names:
        (tmp_path / name).touch()
    measured = MultiLabelEvaluation(
        loss=0.0,
        targets=np.array(targets),
        logits=np.where(targets, -1.0, 1.0).astype(np.float32),  # the reverse is predicted
        thresholds=np.full(len(labels), 0.5),
        known=np.full(len(labels), True),
    )
    table = tmp_path / "answers.csv"
    write_label_sets(table, names, labels, measured)
    for column, said in (("labels", True), ("predicted", False)):
        found = read_source(table, columns={"path": "path", "label": column}, multi_label=True)
        assert [set(picture.labels) for picture in found.pictures] == [
            {label for label, has in zip(labels, row, strict=True) if has is said}
            for row in targets
        ]


@pytest.mark.parametrize(
    ("labels", "cell"),
    [
        (["cat", "red"], "cat|red"),
        (["cat", "red|dark"], '["cat", "red|dark"]'),
        (["cat", "dark red"], '["cat", "dark red"]'),
        (["cat", "梨;"], '["cat", "梨;"]'),
        (["[cat", "red"], '["[cat", "red"]'),
        (["cat", "1"], '["cat", "1"]'),
    ],
)
def test_a_task_has_one_way_of_writing_its_labels(
    gatehub: Gatehub, tmp_path: Path, photos: Path, labels: list[str], cell: str
) -> None:
    write = join_labels(labels)
    assert write(labels) == cell
    assert write([]) == ("[]" if cell[0] == "[" else "")
    assert json.loads(write(["cat"])) == ["cat"] if cell[0] == "[" else write(["cat"]) == "cat"
    if labels[1] == "red|dark":
        every = save_adapter(tmp_path / "every", labels, thresholds=[0.0, 0.0])
        ran = gatehub("predict", every, photos.with_name("0.png"), "--format", "quiet")
        assert sorted(json.loads(ran.out)) == labels
