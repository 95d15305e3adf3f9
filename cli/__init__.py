"""The `gatehub` command: one module for each group of its sub-commands."""

from __future__ import annotations


def main() -> None:
    """Run the command on this process's arguments, and exit with its status."""
    from gatehub.cli.app import app

    app()
