from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.training.sources.side_names import find_side, find_splits

TRAIN = (
    "train",
    "Train",
    "TRAIN",
    "training",
    "Training_Set",
    "seg_train",
    "train2017",
    "my-train",
)
VAL = ("val", "Val", "valid", "VALID", "validation", "Validate", "dev", "seg_val", "val2017")
TEST = ("test", "Testing", "TEST", "test_set", "TestImages", "seg_test", "test set")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *((name, "train") for name in TRAIN),
        *((name, "val") for name in VAL),
        *((name, "test") for name in TEST),
    ],
)
def test_a_side_is_told_by_a_word(name: str, side: str) -> None:
    found = find_side(name)
    assert found is not None
    assert found[0] == side


@pytest.mark.parametrize(
    "name",
    [
        *("trainer", "strain", "evaluation", "invalid", "valley", "device", "contest", "latest"),
        *("pred", "train_val", "traintest", "2017", "", "训练"),
    ],
)
def test_a_part_of_a_word_is_no_word(name: str) -> None:
    assert find_side(name) is None


def test_names_of_one_split_have_the_same_other_words() -> None:
    assert find_splits(["seg_train", "seg_test", "seg_pred"]) == [
        {"train": ["seg_train"], "test": ["seg_test"]}
    ]
    assert find_splits(["training_set", "test_images"]) == [
        {"train": ["training_set"], "test": ["test_images"]}
    ]
    assert find_splits(["freight_train", "passenger_train", "test_tube", "cat"]) == []
    assert find_splits(["train", "plane"]) == [{"train": ["train"]}]


@given(st.text())
def test_any_name_can_be_asked_about(name: str) -> None:
    find_side(name)
    assert [len(split) for split in find_splits([name])] in ([], [1])
