"""The house's floors: a module imports its own room and the floors below, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.source_tree import imports, python_files

Floors = Sequence[Sequence[str]]

# From the ground up; a floor holds rooms, which are packages or modules, and rooms side by side
# do not know each other.
HOUSE: Floors = (
    ("gatehub._text", "gatehub._disk", "gatehub._pickles", "gatehub._retries"),
    ("gatehub._file_kinds",),
    ("gatehub.errors",),
    ("gatehub._arguments",),
    ("gatehub._places", "gatehub._huggingface"),
    ("gatehub.backbone",),
    ("gatehub.compiler",),
    ("gatehub.gates", "gatehub.problem"),
    ("gatehub.inheritance",),
    ("gatehub.adapter",),
    ("gatehub.runtime", "gatehub.training", "gatehub.hub", "gatehub.export"),
    ("gatehub.server",),
    ("gatehub.distributed",),
    ("gatehub.cli",),
)

# The floors within a room, for rooms that hold rooms. What a room's own `__init__` imports is
# its face, and stands above them.
WITHIN: Mapping[str, Floors] = {
    "gatehub.runtime": (
        (
            *("gatehub.runtime.durations", "gatehub.runtime.heap", "gatehub.runtime.inputs"),
            "gatehub.runtime.scheduler",
        ),
        ("gatehub.runtime.execution",),
        ("gatehub.runtime.tasks",),
        ("gatehub.runtime.mixing", "gatehub.runtime.jobs"),
        ("gatehub.runtime.engine", "gatehub.runtime.aside"),
        ("gatehub.runtime.batcher",),
    ),
    "gatehub.hub": (
        ("gatehub.hub.names", "gatehub.hub.files", "gatehub.hub.reports", "gatehub.hub.guard"),
        ("gatehub.hub.protocol", "gatehub.hub.cache", "gatehub.hub.snapshot"),
        ("gatehub.hub.folder", "gatehub.hub.huggingface", "gatehub.hub.lock"),
        ("gatehub.hub.opening",),
        ("gatehub.hub.pushing", "gatehub.hub.pulling", "gatehub.hub.listing"),
    ),
}


def locate(module: str, floors: Floors) -> tuple[int, str] | None:
    """Floor and room of a module, or None if it stands in no room."""
    for floor, rooms in enumerate(floors):
        for room in rooms:
            if module == room or module.startswith(f"{room}."):
                return floor, room
    return None


def violations(sources: Mapping[str, str]) -> list[str]:
    """Sentences about every import in `sources` (module name to source) that breaks the house."""
    found: list[str] = []
    for module, source in sources.items():
        if module == "gatehub":  # its table of public names points to every floor
            continue
        here = locate(module, HOUSE)
        if here is None:
            found.append(f"{module} stands on no floor")
            continue
        inner = WITHIN.get(here[1], ())
        if inner and module != here[1] and locate(module, inner) is None:
            found.append(f"{module} stands on no floor of its room")
        for line, target in imports(source):
            where = f"{module}:{line} (floor {here[0]}) imports {target}"
            if target.startswith("."):
                found.append(f"{where}, which is relative")
            elif target.partition(".")[0] == "gatehub" and target != "gatehub.__version__":
                there = locate(target, HOUSE)
                if there is None:  # a public name, for those on top only; or nothing at all
                    if here[0] < len(HOUSE) - 1:
                        found.append(f"{where}, which stands on no floor")
                elif there != here and there[0] >= here[0]:
                    found.append(f"{where} (floor {there[0]})")
                elif there == here and inner and module != here[1]:
                    found += _within(where, module, target, inner)
    return found


def _within(where: str, module: str, target: str, floors: Floors) -> Iterator[str]:
    here, there = locate(module, floors), locate(target, floors)
    if there is None:
        yield f"{where}, which is the room's own face"
    elif here is not None and there != here and there[0] >= here[0]:
        yield f"{where}, which is not below it in their room"


def circles(sources: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Every set of modules that import each other in a loop, by Tarjan's algorithm."""
    graph = {
        module: {
            name
            for _, target in imports(source)
            for name in (target, target.rpartition(".")[0])
            if name in sources and name != module and not module.startswith(f"{name}.")
        }
        for module, source in sources.items()
        if module != "gatehub"
    }
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph[module] & graph.keys():
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            start = stack.index(module)
            if len(stack) - start > 1:
                found.append(tuple(sorted(stack[start:])))
            del stack[start:]

    for module in graph:
        if module not in order:
            visit(module)
    return found


def read_sources() -> dict[str, str]:
    return {name: path.read_text("utf-8") for name, path in python_files().items()}


def test_every_module_imports_downwards() -> None:
    sources = read_sources()
    assert {"gatehub.errors", "gatehub.cli"} <= sources.keys()  # the trees were found

    found = violations(sources)

    assert not found, "\n".join(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(read_sources()) == []


def test_a_room_holds_one_thing() -> None:
    files = python_files()
    long = {name: len(path.read_text("utf-8").splitlines()) for name, path in files.items()}
    folders = [path.parent for path in files.values() if path.name != "__init__.py"]

    assert {name: lines for name, lines in long.items() if lines > 300} == {}
    assert {folder.name for folder in folders if folders.count(folder) > 15} == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gatehub.gates.fold", "from gatehub.adapter import Adapter"),
        ("gatehub.gates.fold", "import gatehub.adapter.files"),
        ("gatehub.gates.fold", "import json, gatehub.adapter"),
        ("gatehub.gates.fold", "def f():\n    from gatehub.cli import main"),
        ("gatehub.gates.fold", "if TYPE_CHECKING:\n    from gatehub.adapter import Adapter"),
        ("gatehub.gates.fold", "from gatehub.inheritance import embed"),
        ("gatehub.compiler.tracing", "from gatehub.gates.sites import copy_plain"),
        ("gatehub._disk", "from gatehub.errors import HubError"),
        ("gatehub._text", "from gatehub._disk import write_whole"),
        ("gatehub.runtime.engine", "from gatehub.export.parity import compare"),
        ("gatehub.export", "from gatehub.runtime.engine import Engine"),
        ("gatehub.hub.pulling", "from gatehub.training import Recipe"),
        ("gatehub.errors", "from gatehub.backbone import digest_tensors"),
        ("gatehub.runtime.engine", "from gatehub import fold"),
        ("gatehub.runtime.engine", "from gatehub import export"),
        ("gatehub.runtime.engine", "import gatehub"),
        ("gatehub.runtime.engine", "from .residency import Residency"),
        ("gatehub.runtime.engine", "from gatehub.attic import relic"),
        ("gatehub.runtime.engine", "from gatehub.runtime import Engine"),
        ("gatehub.runtime.execution.memo", "from gatehub.runtime.tasks.packed import PackedTask"),
        ("gatehub.runtime.tasks.loading", "from gatehub.runtime.engine import Engine"),
        ("gatehub.runtime.heap", "def f():\n    from gatehub.runtime.scheduler import Scheduler"),
        ("gatehub.hub.folder.hub", "from gatehub.hub.huggingface.hub import HuggingFaceHub"),
        ("gatehub.hub.names", "from gatehub.hub.protocol import Hub"),
        ("gatehub.hub.attic", ""),
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
        ("gatehub.hub", "from gatehub.hub.pulling import pull"),
        ("gatehub.runtime.tasks.tiers", "from gatehub.runtime.execution.weights import place"),
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


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (
            {"gatehub.a": "import gatehub.b", "gatehub.b": "from gatehub import a"},
            [("gatehub.a", "gatehub.b")],
        ),
        (
            {
                "gatehub.a": "def f():\n    from gatehub.b import x",
                "gatehub.b": "from gatehub.c import x",
                "gatehub.c": "if TYPE_CHECKING:\n    from gatehub.a import x",
                "gatehub.d": "from gatehub.a import x",
            },
            [("gatehub.a", "gatehub.b", "gatehub.c")],
        ),
        ({"gatehub.a": "from gatehub.b import x", "gatehub.b": "import json"}, []),
    ],
)
def test_circles_are_found(sources: Mapping[str, str], expected: list[tuple[str, ...]]) -> None:
    assert circles(sources) == expected
