"""The YAML at the head of a card, read as strictly as JSON: strangers write cards.

What YAML has beyond JSON is refused with a sentence: aliases, with which a page of text stands for
gigabytes, tags, merges, and names that are no text. A date stays the text that it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from gatehub._text import first_line, quote, shorten

MAX_CHARACTERS = 65_536
_MAX_DEPTH = 20
_MAX_DIGITS = 40
_EDGE = "---\n"
_TYPES = "tag:yaml.org,2002:"


def read_front_matter(text: str) -> tuple[dict[str, Any], list[str]]:
    """Read the head of a card.

    Args:
        text: the card, with line breaks of one character.

    Returns:
        What it says, which JSON can say too, and a sentence about what programs read in different
        ways, if there is something.

    Raises:
        ValueError: there is none, it is not valid, or it is more than JSON can say.
    """
    # An empty line behind it, so that the head may end where the card does.
    head, edge, _ = f"{text}\n".removeprefix(_EDGE).partition(f"\n{_EDGE}")
    if not text.startswith(_EDGE) or not edge:
        raise ValueError("It has no front matter between two lines of '---'.")
    if len(head) > MAX_CHARACTERS:
        raise ValueError(
            f"Its front matter has {len(head):,} characters; at most {MAX_CHARACTERS:,} are read."
        )
    try:
        reader = _Reader(head)
        metadata = reader.read()
    except yaml.YAMLError as error:
        raise ValueError(f"Its front matter is not YAML: {_explain(error)}.") from error
    if not isinstance(metadata, dict):
        raise ValueError("Its front matter is not a mapping.")
    return metadata, reader.advise()


class _Reader:
    """Builds one document of a parser's events, which come one by one and so cost what is read."""

    def __init__(self, head: str) -> None:
        self._dates: list[Any] = []
        self._loader = yaml.SafeLoader(head)
        self._events: Iterator[Any] = iter(self._next, None)

    def read(self) -> Any:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                value = self._build(next(self._events), depth=0)
                self._end()
                return value
        return None

    def advise(self) -> list[str]:
        if not self._dates:
            return []
        first = self._dates[0]
        return [
            f"Its front matter holds a date {self._place(first)} ({len(self._dates):,} such), "
            f'which some programs read as text and others do not; write "{first.value}".'
        ]

    def _next(self) -> Any:
        try:
            return self._loader.get_event()
        except (ValueError, OverflowError) as error:  # of chr(), for "\\Uffffffff"
            self._refuse_text(self._loader.line, error)

    def _end(self) -> None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._refuse(event, "a second document")

    def _build(self, event: Any, *, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse(event, f"an alias or anchor ({quote(event.anchor, 40)})")
        if event.tag is not None and event.tag != "!":  # "!" is how it says: as it stands
            self._refuse(event, f"a tag ({quote(event.tag, 40)})")
        if depth > _MAX_DEPTH:
            self._refuse(event, f"more than {_MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            return self._convert(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                items.append(self._build(item, depth=depth + 1))
            return items
        fields: dict[str, Any] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            name = self._read_name(key)
            if name in fields:
                self._refuse(key, f"the name {quote(name, 40)} twice")
            fields[name] = self._build(next(self._events), depth=depth + 1)
        return fields

    def _read_name(self, event: Any) -> str:
        kind = self._type(event) if isinstance(event, yaml.ScalarEvent) else "list or mapping"
        if kind == "merge":
            self._refuse(event, "a merge (<<)")
        if kind != "str":
            self._refuse(event, f"a {kind} as a name (text can be put in quotation marks)")
        return str(self._build(event, depth=0))

    def _type(self, event: Any) -> str:
        """What a scalar is taken for, such as "int"; text in quotation marks is text."""
        if event.style is not None or event.tag == "!":
            return "str"
        tag: str = self._loader.resolve(yaml.ScalarNode, event.value, (True, False))
        return tag.removeprefix(_TYPES)

    def _convert(self, event: Any) -> str | int | float | bool | None:
        kind, text = self._type(event), event.value
        try:
            text.encode()
        except UnicodeEncodeError as error:  # half of a pair of surrogates
            self._refuse_text(event.start_mark.line, error)
        if kind == "null":
            return None
        if kind == "bool":
            return bool(self._loader.bool_values[text.lower()])
        if kind in ("int", "float"):
            if len(text) > _MAX_DIGITS:
                self._refuse(event, f"a number of {len(text):,} characters")
            try:
                number: int | float = getattr(self._loader, f"construct_yaml_{kind}")(
                    yaml.ScalarNode(f"{_TYPES}{kind}", text)
                )
            except ValueError:  # it looks like one, as "0x_" does
                return str(text)
            if not math.isfinite(number) or (kind == "int" and abs(number) >= 2**63):
                self._refuse(event, f"a number that JSON does not have ({text})")
            return number
        if kind == "timestamp":
            self._dates.append(event)
        return str(text)

    def _refuse(self, event: Any, what: str) -> NoReturn:
        raise ValueError(
            f"Its front matter holds {what} {self._place(event)}; expected what JSON can say."
        )

    def _refuse_text(self, line: int, error: Exception) -> NoReturn:
        raise ValueError(
            f"Its front matter holds a character that UTF-8 does not have {_name_line(line)}."
        ) from error

    def _place(self, event: Any) -> str:
        return _name_line(event.start_mark.line)


def _name_line(line: int) -> str:
    # One line for the edge above it, and lines count from one.
    return f"in line {line + 2}"


def _explain(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if not problem or mark is None:
        return first_line(error)
    return f"{shorten(problem)} {_name_line(mark.line)}"
