"""Strict reading of JSON: every key once, every field known, every type as declared."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar

from gatehub._text import first_line, shorten
from gatehub.errors import ConfigError, DuplicateKeyError

T = TypeVar("T")

MAX_TEXT = 4096

_NAMES = {str: "a string", int: "an integer", float: "a number", list: "a list", dict: "an object"}
# Control characters, line separators, and halves of a character that UTF-8 cannot write.
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def parse_json(data: bytes, *, where: str) -> Any:
    """Parse JSON that no two readers could understand differently.

    Args:
        data: UTF-8 text.
        where: what is read, for the errors.

    Raises:
        DuplicateKeyError: an object holds a key twice.
        ConfigError: not JSON, not UTF-8, nested too deeply, or NaN and infinity.
    """

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise DuplicateKeyError(f"{where} holds the key {describe(key)} more than once.")
            seen[key] = value
        return seen

    def refuse_constant(text: str) -> NoReturn:
        raise ConfigError(f"{where} holds {text}, which is not JSON.")

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=refuse_duplicates,
            parse_constant=refuse_constant,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON in UTF-8: {first_line(error)}.") from error
    except ValueError as error:
        if isinstance(error, ConfigError | DuplicateKeyError):
            raise
        # An integer of more digits than Python converts.
        raise ConfigError(f"{where} holds a number out of range: {first_line(error)}.") from error


class Fields:
    """The fields of one JSON object, each to be taken once; what is left over is an error.

    Args:
        value: the parsed JSON.
        where: the object's place, such as "config.json: backbone".

    Raises:
        ConfigError: not an object.
    """

    def __init__(self, value: Any, *, where: str) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {describe(value)}; expected an object.")
        self._left = dict(value)
        self.where = where

    def take(self, name: str, kind: type[T]) -> T:
        """Take a field of one type; an integer counts as a number, true and false do not.

        Raises:
            ConfigError: missing, or of another type.
        """
        if name not in self._left:
            raise ConfigError(f"{self.where} lacks the field '{name}'.")
        return self._check(name, self._left.pop(name), kind)

    def take_optional(self, name: str, kind: type[T]) -> T | None:
        """Take a field that may be null; it must be there."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.take(name, kind)

    def take_list(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """Take a list whose items all have one type."""
        items = self.take(name, list)
        return tuple(self._check(f"{name}[{i}]", item, kind) for i, item in enumerate(items))

    def take_scalar(self, name: str) -> str | int | float | bool | None:
        """Take a field that is neither a list nor an object.

        Raises:
            ConfigError: it is one, or a number that is not finite.
        """
        value = self._left.pop(name)
        if isinstance(value, list | dict):
            raise ConfigError(f"{self._place(name)} is {describe(value)}; expected a single value.")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._check(name, value, str)
        return self._check(name, value, int if isinstance(value, int) else float)

    def take_fields(self, name: str) -> Fields:
        """Take a field that is itself an object."""
        return Fields(self.take(name, dict), where=self._place(name))

    def names(self) -> tuple[str, ...]:
        """Return the names of the fields that are left, for objects whose keys are names."""
        return tuple(self._left)

    def done(self) -> None:
        """Refuse whatever was not taken.

        Raises:
            ConfigError: there are unknown fields.
        """
        if self._left:
            names = ", ".join(describe(name) for name in sorted(self._left)[:5])
            more = f" and {len(self._left) - 5} more" if len(self._left) > 5 else ""
            raise ConfigError(f"{self.where} has unknown fields: {names}{more}.")

    def _place(self, name: str) -> str:
        return f"{self.where}.{shorten(name, 80)}"

    def _check(self, name: str, value: Any, kind: type[T]) -> T:
        if kind is float and type(value) is int:
            value = float(value) if is_number(value) else math.inf
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(f"{self._place(name)} is {describe(value)}; expected {_NAMES[kind]}.")
        if isinstance(value, str) and value and not is_text(value):
            raise ConfigError(
                f"{self._place(name)} is {describe(value)}; expected a line of text, at most "
                f"{MAX_TEXT} characters."
            )
        return value


def is_number(value: object) -> bool:
    """Whether a value is a number that readers of JSON hold: finite, and whole up to 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64


def is_text(value: str) -> bool:
    """Whether a string is one line, neither empty nor endless, that can be shown anywhere."""
    return 1 <= len(value) <= MAX_TEXT and _NOT_TEXT.search(value) is None


def describe(value: Any) -> str:
    """Show a JSON value in a few characters, however large or deep it is."""
    if isinstance(value, list | dict):
        return f"{_NAMES[type(value)]} of {len(value)} items"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
