"""The command, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest


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
    """Runs `gatehub ARGUMENTS` in a process of its own."""

    def __call__(self, *arguments: object, env: Mapping[str, str] | None = None) -> Ran: ...


@pytest.fixture(scope="session")
def gatehub() -> Gatehub:
    def run(*arguments: object, env: Mapping[str, str] | None = None) -> Ran:
        command = [sys.executable, "-c", "from gatehub.cli import main; main()"]
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "COLUMNS": "100", **(env or {})},
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
