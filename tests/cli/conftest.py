"""The command, run as a user runs it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner

from gatehub.cli.app import app


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        assert self.status == 0, self.err
        return json.loads(self.out)


class Gatehub(Protocol):
    """Runs `gatehub ARGUMENTS` in this process: starting one takes seconds."""

    def __call__(
        self, *arguments: object, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Ran: ...


@pytest.fixture(scope="session")
def gatehub() -> Gatehub:
    def run(*arguments: object, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
        # Nothing listens there: no test may ask the real Hub.
        nowhere = {"GATEHUB_HUB": "", "HF_ENDPOINT": "http://127.0.0.1:9"}
        settings = {"COLUMNS": "100", **nowhere, **(env or {})}
        done = CliRunner().invoke(app, [*map(str, arguments)], stdin, settings)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Let what is started take signals as from a terminal; under nohup or & it ignores some."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, lambda number, frame: None)  # a handler does not survive exec
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
