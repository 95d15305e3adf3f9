"""The package's source as data, for the tests that hold its structure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Installed package -> its folder in the repository.
TREES = {
    "gatehub": ROOT / "gatehub",
    "gatehub.cli": ROOT / "cli",
    "gatehub.export": ROOT / "export",
}


def python_files() -> dict[str, Path]:
    """Every module of the package, by the name under which it is imported."""
    files = {}
    for package, folder in TREES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            stem = parts[:-1] if parts[-1] == "__init__" else parts
            files[".".join((package, *stem))] = path
    return files


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and target of every import, those in functions and in TYPE_CHECKING blocks too.

    `from gatehub.hub import folder` yields "gatehub.hub.folder", whether that is a module or
    a name in one; a relative import yields its dots: `from .files import x` yields ".files.x".
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (f"{node.module}." if node.module else "")
            for alias in node.names:
                yield node.lineno, origin + alias.name
