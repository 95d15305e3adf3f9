"""The head of a card, which strangers write: a mapping of what JSON can say, or a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatehub.adapter.front_matter import MAX_CHARACTERS, read_front_matter

# Nine lines of it stand for more words than there are atoms on a beach.
BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def card(head: str) -> str:
    return f"---\n{head}\n---\n\n# birds\n"


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (BOMB, r"an alias or anchor \('a'\) in line 2; expected what JSON can say"),
        ("a: b\nc: *b", r"an alias or anchor \('b'\) in line 3"),
        ("&a b: c", "an alias or anchor"),
        ("a: !!python/object/apply:os.system [x]", r"a tag \('tag:yaml.org,2002:python/object/ap"),
        ("a: !!set {x, y}", "a tag"),
        ("a: !!binary aGk=", "a tag"),
        ("a: !!str 1", "a tag"),
        ("a: !mine 1", r"a tag \('!mine'\)"),
        ("a: .nan", r"a number that JSON does not have \(\.nan\)"),
        ("a: [1, -.INF]", r"a number that JSON does not have \(-\.INF\)"),
        ("a: 1.0e+999", "a number that JSON does not have"),
        ("a: 9223372036854775808", "a number that JSON does not have"),
        (f"a: {'9' * 5_000}", "a number of 5,000 characters"),
        ("a: 1\nb: 2\na: 3", "the name 'a' twice in line 4"),
        ("a: {b: 1, 'b': 2}", "the name 'b' twice in line 2"),
        ("a: {<<: {b: 1}}", r"a merge \(<<\)"),
        ("1: a", "a int as a name"),
        ("no: a", "a bool as a name"),
        ("~: a", "a null as a name"),
        ("2024-01-01: a", "a timestamp as a name"),
        ("? [a]\n: b", "a list or mapping as a name"),
        ("{[a]: b}", "a list or mapping as a name"),
        ('a: 1\nb: "\\Uffffffff"', "a character that UTF-8 does not have in line 3"),
        ('a: "\\U00110000"', "a character that UTF-8 does not have in line 2"),
        ('a: "\n \\ud800"', "a character that UTF-8 does not have in line 2"),
        ('a: "\\ud83d\\ude00"', "a character that UTF-8 does not have in line 2"),
        ('"\\udfff": a', "a character that UTF-8 does not have in line 2"),
        ("a: " + "[" * 10_000, "more than 20 levels"),
        ("a: " + "[" * 10_000 + "]" * 10_000, "more than 20 levels"),
        ("- " * 10_000, "more than 20 levels"),
        ("{a: " * 10_000, "more than 20 levels"),
        ("a: 1\n--- \nb: 2", "a second document in line 3"),
        ("a: 1\n...\nb: 2", "is not YAML: expected '<document start>', but found .* in line 4"),
        ("tags: [", "is not YAML: .* in line"),
        ("a: \x07", "is not YAML: unacceptable character"),
        ("a:\tb\n\tc: d", "is not YAML"),
        ("%YAML 9.9", "is not YAML"),
        ("a: 'b", "is not YAML"),
        ("- a", "is not a mapping"),
        ("text", "is not a mapping"),
        ("", "is not a mapping"),
        ("# only a comment", "is not a mapping"),
        ("a: " + "x" * MAX_CHARACTERS, "has 65,539 characters; at most 65,536 are read"),
    ],
)
def test_what_json_cannot_say_is_refused(head: str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read_front_matter(card(head))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text", ["", "# birds", "---", "---\n", "---\n---\n", "---\na: b\n", "\ufeff---\na: b\n---\n"]
)
def test_a_card_may_have_no_head(text: str) -> None:
    with pytest.raises(ValueError, match="no front matter between two lines of '---'"):
        read_front_matter(text)


def test_everything_else_is_read_as_it_stands() -> None:
    found, advice = read_front_matter(
        card(
            "text: [a b, '1', \"\\u00e9\", ! 2, =, 1e5, 0x_, null and void]\n"
            "numbers: [1, -2, 0x1F, 017, 1_000, 1:30, 1.5, .5, 1.0e-7]\n"
            "words: [yes, Off, true, ~, null, ]\n"
            "nested: {a: {b: [{c: d}]}}\n"
            "folded: >\n  a\n  b\n"
        )
    )
    assert found == {
        "text": ["a b", "1", "\u00e9", "2", "=", "1e5", "0x_", "null and void"],
        "numbers": [1, -2, 31, 15, 1_000, 90, 1.5, 0.5, 1e-7],
        "words": [True, False, True, None, None],
        "nested": {"a": {"b": [{"c": "d"}]}},
        "folded": "a b\n",
    }
    assert advice == []


@pytest.mark.parametrize("date", ["2024-01-01", "2001-12-14t21:59:43.10-05:00"])
def test_a_date_stays_text(date: str) -> None:
    found, (advice,) = read_front_matter(card(f"a: {date}\nb: [{date}, '{date}']"))
    assert found == {"a": date, "b": [date, date]}
    assert "holds a date in line 2 (2 such), which some programs read as text" in advice
    assert f'write "{date}"' in advice


def test_the_head_may_end_where_the_card_does() -> None:
    assert read_front_matter("---\na: b\n---")[0] == {"a": "b"}


def test_a_head_of_any_kind_is_read_in_moments() -> None:
    """Each grows with its length, as far as it is read: 65,536 characters at most."""
    for piece in (
        "[",
        "{",
        "- ",
        "? ",
        "!!x ",
        "&a ",
        "*a ",
        "%a\n",
        "[a,",
        "{a: ",
        "- - -\n",
        "#",
    ):
        with pytest.raises(ValueError, match="Its front matter"):
            read_front_matter(card((piece * 30_000)[:30_000]))


PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            ": ",
            "- ",
            "\n",
            "\n  ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "? ",
            "&a ",
            "*a",
            "!!set ",
        ),
        *("!x ", "'", '"', "|\n", ">\n", "<<", "=", "~", "1", "0x", ".nan", "1e9", "2024-01-01"),
        *("12:30", "#", "\t", "---\n", "...\n", "%YAML", "\\", "\x85", "\u2028", "\x1b", "\ufeff"),
        *("\U0001f426", "yes"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=30))
@example("? a\n? b")
@example("a: 0b_")
@example("a: 1:_")
def test_any_head_is_what_json_can_say_or_a_sentence(head: str) -> None:
    try:
        found, advice = read_front_matter(card(head))
    except ValueError as error:
        sentence = str(error)
        assert sentence.startswith(("Its front matter ", "It has no front matter "))
        assert sentence.isprintable()
        assert len(sentence) < 400
        return
    assert _sorts(found) <= {str, int, float, bool, type(None), dict, list}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(line.isprintable() for line in advice)


def _sorts(value: Any) -> set[type]:
    """The types of a value and of all that it holds."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {type(value)}.union(*map(_sorts, inner))
