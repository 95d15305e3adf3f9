from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehub.errors import DataError
from gatehub.training.sources import Picture
from gatehub.training.split import Sides, divide, stratified_order

CLASS_SIZES = st.lists(st.integers(min_value=2, max_value=12), min_size=2, max_size=6)


def pictures(sizes: dict[str, int], side: str | None = None) -> list[Picture]:
    pixels = np.zeros((1, 1, 3), np.uint8)
    return [
        Picture(name=f"{side}/{label}/{i}", label=label, image=pixels, side=side)  # type: ignore[arg-type]
        for label, size in sizes.items()
        for i in range(size)
    ]


def halves(
    source: list[Picture],
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    train_images: int | None = None,
    default_train_images: int | None = None,
) -> tuple[list[Picture], list[Picture]]:
    sides = divide(
        source,
        "the source",
        labels=("a", "b"),
        seed=seed,
        val_fraction=val_fraction,
        train_images=train_images,
        default_train_images=default_train_images,
    )
    assert sides.test == [picture for picture in source if picture.side == "test"]
    return sides.train, sides.val


@settings(deadline=None)
@given(sizes=CLASS_SIZES, seed=st.integers(min_value=0, max_value=2**40), data=st.data())
def test_any_cut_parts_the_images_and_keeps_every_class_on_both_sides(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    targets = data.draw(st.permutations([c for c, size in enumerate(sizes) for _ in range(size)]))
    names = [f"{number}.png" for number in range(len(targets))]
    order = stratified_order(targets, names, seed=seed)
    assert sorted(order) == list(range(len(targets)))
    assert order == stratified_order(targets, names, seed=seed)
    cut = data.draw(st.integers(min_value=len(sizes), max_value=len(targets) - len(sizes)))
    for part in (order[:cut], order[cut:]):
        assert {targets[index] for index in part} == set(range(len(sizes)))


@settings(deadline=None)
@given(sizes=CLASS_SIZES, seed=st.integers(min_value=0, max_value=99), data=st.data())
def test_order_of_the_listing_does_not_matter(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    listed = [(f"{c}/{i}", c) for c, size in enumerate(sizes) for i in range(size)]
    shuffled = data.draw(st.permutations(listed))

    def names_in_order(images: list[tuple[str, int]]) -> list[str]:
        names, targets = zip(*images, strict=True)
        return [names[index] for index in stratified_order(targets, names, seed=seed)]

    assert names_in_order(listed) == names_in_order(shuffled)


def test_every_beginning_is_in_proportion() -> None:
    targets = [0] * 60 + [1] * 30 + [2] * 10
    order = stratified_order(targets, [str(i) for i in range(100)], seed=5)
    for cut in (10, 20, 50, 80, 90):
        counts = Counter(targets[index] for index in order[:cut])
        assert [abs(counts[c] - cut * share) <= 1 for c, share in enumerate((0.6, 0.3, 0.1))] == [
            True
        ] * 3, (cut, counts)


def test_order_is_the_same_on_every_machine() -> None:
    names = [f"{label}/{i}.png" for label in ("a", "b") for i in range(5)]
    order = stratified_order([0] * 5 + [1] * 5, names, seed=7)
    assert order == [0, 5, 2, 8, 9, 3, 7, 4, 6, 1]


def test_seeds_differ() -> None:
    names = [str(i) for i in range(30)]
    orders = {tuple(stratified_order([0, 1] * 15, names, seed=seed)) for seed in range(20)}
    assert len(orders) == 20


def test_name_that_is_not_utf8_has_a_place() -> None:
    assert sorted(stratified_order([0, 0, 0], ["caf\udce9", "x", "y"], seed=0)) == [0, 1, 2]


def test_a_new_image_moves_few_others() -> None:
    before, _ = halves(pictures({"a": 200, "b": 200}))
    after, _ = halves(pictures({"a": 201, "b": 200}))
    moved = {p.name for p in before} ^ {p.name for p in after}
    assert len(moved) <= 2


def test_fraction_decides_where_nothing_else_does() -> None:
    train, val = halves(pictures({"a": 10, "b": 20}), val_fraction=0.2)
    assert Counter(p.label for p in val) == {"a": 2, "b": 4}
    assert [p.name for p in train] == sorted(
        (p.name for p in train), key=[p.name for p in pictures({"a": 10, "b": 20})].index
    )


@pytest.mark.parametrize(("fraction", "val_size"), [(0.001, 2), (0.999, 4)])
def test_extreme_fractions_leave_each_class_an_image(fraction: float, val_size: int) -> None:
    train, val = halves(pictures({"a": 3, "b": 3}), val_fraction=fraction)
    assert len(val) == val_size
    assert {p.label for p in train} == {p.label for p in val} == {"a", "b"}


def test_default_number_of_training_images() -> None:
    source = pictures({"a": 20, "b": 20})
    assert [len(side) for side in halves(source, default_train_images=10)] == [10, 30]
    both = halves(source, default_train_images=10, train_images=30)
    assert [len(side) for side in both] == [30, 10]


def test_given_sides_are_kept_and_the_training_side_thinned() -> None:
    train, val = pictures({"a": 30, "b": 10}, "train"), pictures({"a": 3, "b": 3}, "val")
    assert halves(train + val) == (train, val)
    fewer, same_val = halves(train + val, train_images=8)
    assert same_val == val
    assert Counter(p.label for p in fewer) == {"a": 6, "b": 2}
    assert fewer == halves(train + val, train_images=8)[0]
    assert fewer != halves(train + val, train_images=8, seed=1)[0]


def test_thinning_a_split_does_not_touch_its_validation_side() -> None:
    source = pictures({"a": 30, "b": 10})
    train, val = halves(source)
    fewer, same_val = halves(source, train_images=8)
    assert same_val == val
    assert {p.name for p in fewer} < {p.name for p in train}
    assert len(fewer) == 8


def test_class_with_one_image_cannot_be_split() -> None:
    with pytest.raises(
        DataError, match=r"the source has too few .* of: b \(1\); expected at least 2"
    ):
        halves(pictures({"a": 5, "b": 1}))


def test_class_that_a_side_lacks_is_named() -> None:
    with pytest.raises(DataError, match="the source has no val images of: b; expected every class"):
        halves(pictures({"a": 2, "b": 2}, "train") + pictures({"a": 2}, "val"))
    with pytest.raises(DataError, match="the source has no train images of: a;"):
        halves(pictures({"b": 2}, "train") + pictures({"a": 2, "b": 1}, "val"))


def test_more_training_images_than_there_are() -> None:
    with pytest.raises(DataError, match="has 8 images to train on; expected the 9 asked for"):
        halves(pictures({"a": 5, "b": 5}), train_images=9)


def test_validation_is_split_off_what_is_trained_on_and_the_test_side_stays() -> None:
    train, test = pictures({"a": 20, "b": 10}, "train"), pictures({"a": 5}, "test")
    first, held_out = halves(train + test)
    assert Counter(p.label for p in held_out) == {"a": 4, "b": 2}
    assert {p.name for p in first} | {p.name for p in held_out} == {p.name for p in train}
    assert halves(train + test) == (first, held_out) != halves(train + test, seed=1)


@pytest.mark.parametrize("side", ["val", "test"])
def test_a_source_without_images_to_train_on(side: str) -> None:
    with pytest.raises(DataError, match=f"no images to train on, only {side}.*to train on train"):
        halves(pictures({"a": 5, "b": 5}, side))


def several(*sets: str) -> list[Picture]:
    """Pictures of which each has the labels that are letters of a text."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    return [
        Picture(name=f"{i}/{own}", label=tuple(sorted(own)), image=pixels)
        for i, own in enumerate(sets)
    ]


def counts(pictures: Sequence[Picture]) -> Counter[str]:
    return Counter(label for picture in pictures for label in picture.labels)


def divide_sets(
    pictures: Sequence[Picture], labels: str, *, seed: int = 0, share: float = 0.2
) -> Sides:
    return divide(
        pictures,
        "t.csv",
        labels=tuple(labels),
        seed=seed,
        val_fraction=share,
        train_images=None,
        default_train_images=None,
    )


@given(
    st.lists(st.text("abcd", max_size=3).map(lambda text: "".join(set(text))), max_size=30),
    st.integers(0, 50),
    st.floats(0.05, 0.95),
)
def test_each_label_is_on_both_sides_and_no_image_is_lost(
    sets: list[str], seed: int, share: float
) -> None:
    # Of each label two images that have nothing else, so that it can always be done.
    pictures = several(*sets, *("abcd" * 2))
    sides = divide_sets(pictures, "abcd", seed=seed, share=share)
    assert set(counts(sides.train)) == set(counts(sides.val)) == set("abcd")
    assert sorted(p.name for p in (*sides.train, *sides.val)) == sorted(p.name for p in pictures)
    again = divide_sets(pictures, "abcd", seed=seed, share=share)
    assert [p.name for p in again.val] == [p.name for p in sides.val]


def test_labels_are_divided_in_proportion() -> None:
    pictures = several(*(["ab"] * 20 + ["a"] * 20 + ["c"] * 10 + [""] * 50))
    sides = divide_sets(pictures, "abc", share=0.5)
    found = counts(sides.val)
    assert len(sides.val) == 50
    assert abs(found["a"] - 20) <= 2
    assert abs(found["b"] - 10) <= 2
    assert abs(found["c"] - 5) <= 2


def test_a_label_that_cannot_be_on_both_sides_is_named() -> None:
    with pytest.raises(DataError, match=r"t\.csv has too few images to split of: b \(1\)"):
        divide_sets(several("ab", "a", "a", ""), "ab")
    # Whichever side the image of a and b is on, one of them lacks it.
    with pytest.raises(DataError, match=r"t\.csv has no (train|val) images of: [abc]"):
        divide_sets(several("ab", "bc", "ca"), "abc")
