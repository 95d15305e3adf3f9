"""What strangers wrote is shown short, in one line, and commands no terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub._text import ECHO_CHARACTERS, first_line, printable, quote, shorten
from gatehub.errors import GatehubError

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=600)


@given(ANYTHING)
def test_everything_can_be_shown(text: str) -> None:
    for shown in (printable(text), shorten(text), quote(text), first_line(ValueError(text))):
        assert shown.isprintable()
        shown.encode()
    assert len(shorten(text)) <= ECHO_CHARACTERS
    assert text.split() or shorten(text) == ""


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=ECHO_CHARACTERS))
def test_what_can_be_shown_stays_as_it_is(text: str) -> None:
    assert printable(text) == shorten(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("gpj.\u202ecod", "gpj.\\u202ecod"),
        ("half \ud800", "half \\ud800"),
        ("caf\udce9.png", "caf\\xe9.png"),
        ("two\nlines\t here ", "two lines here"),
        ("x" * 10**7, "x" * (ECHO_CHARACTERS - 1) + "…"),
        (" " * 10**7, "…"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert shorten(text) == shown


def test_an_error_without_words_is_named() -> None:
    assert first_line(ValueError("")) == "ValueError"
    assert first_line(ValueError("No such thing.\nAt all.")) == "No such thing. At all"


def test_our_own_errors_can_be_shown_whatever_they_quote() -> None:
    error = GatehubError("No task '\x1b[2J\nbirds'.", hint="Try '\ud800'.")
    error.message = f"Sorry. {error.message}\x07"

    assert str(error) == "Sorry. No task '\\x1b[2J\\nbirds'.\\x07 Try '\\ud800'."
