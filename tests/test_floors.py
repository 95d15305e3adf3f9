"""The house's floors: a module imports its own room and the floors below, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.source_tree import imports, python_files

# From the ground up. A floor holds rooms, a room holds modules and packages; `gatehub._`
# stands for the private modules beside the backbone's.
FLOORS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("gatehub._text",), ("gatehub._disk",), ("gatehub._pickles",), ("gatehub._retries",)),
    (("gatehub.errors",),),
    (("gatehub.backbone", "gatehub._"),),
    (("gatehub.compiler",),),
    (("gatehub.gates",), ("gatehub.inheritance",)),
    (("gatehub.adapter",),),
    (("gatehub.runtime",), ("gatehub.training",), ("gatehub.hub",), ("gatehub.export",)),
    (("gatehub.server",),),
    (("gatehub.distributed",),),
    (("gatehub.cli",),),
)


def locate(module: str) -> tuple[int, int] | None:
    """Floor and room of a module, or None if it stands in no room."""
    for floor, rooms in enumerate(FLOORS):
        for room, members in enumerate(rooms):
            for member in members:
                if member.endswith("_") and module.startswith(member):
                    return floor, room
                if module == member or module.startswith(member + "."):
                    return floor, room
    return None


def violations(sources: Mapping[str, str]) -> list[str]:
    """Sentences about every import in `sources` (module name to source) that breaks the house."""
    found = []
    for module, source in sources.items():
        if module == "gatehub":  # its table of public names points to every floor
            continue
        here = locate(module)
        if here is None:
            found.append(f"{module} stands on no floor")
            continue
        for line, target in imports(source):
            where = f"{module}:{line} (floor {here[0]}) imports {target}"
            if target.startswith("."):
                found.append(f"{where}, which is relative")
            elif target.partition(".")[0] == "gatehub" and target != "gatehub.__version__":
                there = locate(target)
                if there is None:  # a public name, for those on top only; or nothing at all
                    if here[0] < len(FLOORS) - 1:
                        found.append(f"{where}, which stands on no floor")
                elif there != here and there[0] >= here[0]:
                    found.append(f"{where} (floor {there[0]})")
    return found


def test_every_module_imports_downwards() -> None:
    files = python_files()
    assert {"gatehub.errors", "gatehub.cli"} <= files.keys()  # the trees were found

    found = violations({name: path.read_text("utf-8") for name, path in files.items()})

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gatehub.gates.fold", "from gatehub.adapter import Adapter"),
        ("gatehub.gates.fold", "import gatehub.adapter.files"),
        ("gatehub.gates.fold", "import json, gatehub.adapter"),
        ("gatehub.gates.fold", "def f():\n    from gatehub.cli import main"),
        ("gatehub.gates.fold", "if TYPE_CHECKING:\n    from gatehub.adapter import Adapter"),
        ("gatehub.gates.fold", "from gatehub.inheritance import embed"),
        ("gatehub.runtime.engine", "from gatehub.export.parity import compare"),
        ("gatehub.export", "from gatehub.runtime.engine import Engine"),
        ("gatehub.hub.pulling", "from gatehub.training import Recipe"),
        ("gatehub.errors", "from gatehub.backbone import digest_tensors"),
        ("gatehub.runtime.engine", "from gatehub import fold"),
        ("gatehub.runtime.engine", "from gatehub import export"),
        ("gatehub.runtime.engine", "import gatehub"),
        ("gatehub.runtime.engine", "from .residency import Residency"),
        ("gatehub.runtime.engine", "from gatehub.attic import relic"),
        ("gatehub.attic", ""),
        ("gatehub.gatescopy", ""),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert len(violations({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gatehub", "from gatehub.runtime.engine import Engine"),
        ("gatehub.backbone.backbone", "from gatehub.backbone._weights import build"),
        ("gatehub.backbone.preprocessing", "from gatehub.errors import BackboneError"),
        ("gatehub.backbone.backbone", "from gatehub.backbone import _weights"),
        ("gatehub.hub.pushing", "from gatehub import __version__"),
        ("gatehub.hub.folder.hub", "from gatehub.hub.protocol import Hub"),
        (
            "gatehub.export.onnx",
            "import onnx\nimport torch.nn as nn\nfrom gatehub.gates import fold",
        ),
        ("gatehub.server.app", "from gatehub.runtime.engine import Engine"),
        ("gatehub.cli.export", "import gatehub\nfrom gatehub import fold"),
    ],
)
def test_an_allowed_import_is_not_reported(module: str, source: str) -> None:
    assert violations({module: source}) == []
