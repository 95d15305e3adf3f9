"""The data that an adapter remembers: each source a setting of its own, and none of them a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.adapter import verify_adapter
from gatehub.adapter.card import render_card
from gatehub.adapter.privacy import hide_paths
from gatehub.adapter.trained_on import read_sources, write_sources
from tests.adapter.sample import CARD, make_sample

SOURCES = ["/home/ada/secret-client/animals.csv", r"C:\secret-client\colours.csv", "sklearn:digits"]


@given(st.lists(st.text(min_size=1), max_size=12))
def test_what_is_written_is_read_again(sources: list[str]) -> None:
    assert list(read_sources(write_sources(sources)).values()) == sources


@pytest.mark.parametrize(
    ("training", "found"),
    [
        ({}, []),
        ({"data": ""}, []),
        ({"data": 7, "data_2": "b"}, []),
        ({"data": "a", "data_3": "c", "database": "d"}, ["a"]),
    ],
)
def test_what_others_wrote_is_read_as_far_as_it_goes(
    training: dict[str, object], found: list[str]
) -> None:
    assert list(read_sources(training).values()) == found


def test_one_source_is_called_data() -> None:
    assert write_sources(["a"]) == {"data": "a"}
    assert list(write_sources(["a", "b", "c"])) == ["data", "data_2", "data_3"]


def test_a_card_and_a_push_name_every_source_without_its_place(tmp_path: Path) -> None:
    adapter = make_sample(training={**write_sources(SOURCES), "epochs": 3})
    folder = adapter.save(tmp_path / "fruit")
    config, _, cut = hide_paths(folder, verify_adapter(folder))
    assert sorted(cut) == sorted(SOURCES[:2])
    assert list(read_sources(config.training).values()) == [
        "animals.csv",
        "colours.csv",
        "sklearn:digits",
    ]
    for card in (render_card(adapter.config, adapter_bytes=1), (folder / CARD).read_text("utf-8")):
        words = " ".join(card.split())
        assert "--data animals.csv --data colours.csv --data sklearn:digits --task" in words
        assert "| data_2 | colours.csv |" in words
        assert 'name: "animals.csv, colours.csv, sklearn:digits"' in words
        assert "secret-client" not in card
