"""The `gatehub` command: one module for each group of its sub-commands."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command on this process's arguments, and exit with its status."""
    from gatehub.cli._output import write_anywhere
    from gatehub.cli._signals import unwind_on_signals

    unwind_on_signals()
    write_anywhere()
    # The Hub's client would tell of each of its own attempts; what came of them is told anyway.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")

    from gatehub.cli.app import app
    from gatehub.runtime.heap import keep_freed_memory

    keep_freed_memory()
    app()
