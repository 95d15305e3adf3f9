"""The names that `import gatehub` offers, and what it must not cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gatehub

NAMES = [
    "Adapter",
    "Backbone",
    "Engine",
    "GatehubError",
    "ImageRules",
    "Preprocessing",
    "SiteRule",
    "__version__",
    "attach_gates",
    "errors",
    "export",
    "fold",
    "list_adapters",
    "load_backbone",
    "pull",
    "push",
    "register_site",
    "search",
]

# What a program pays for only where it uses it.
HEAVY = [
    "accelerate",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "ray",
    "sklearn",
    "starlette",
    "typer",
    "uvicorn",
]


def loaded_after(statements: str, packages: list[str]) -> list[str]:
    """Those of `packages` that a fresh interpreter has loaded after running `statements`."""
    report = f"import sys; print(*[name for name in {packages!r} if name in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", f"{statements}\n{report}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process.stdout.split()


def test_public_names_are_exactly_these() -> None:
    assert gatehub.__all__ == NAMES
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_public_name_resolves(name: str) -> None:
    assert getattr(gatehub, name) is not None
    assert name in dir(gatehub)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gatehub' has no attribute 'unfold'"):
        gatehub.unfold  # noqa: B018


def test_importing_gatehub_loads_nothing_heavy() -> None:
    assert loaded_after("import gatehub; dir(gatehub)", ["torch", "timm", *HEAVY]) == []


def test_predicting_and_sharing_load_neither_export_nor_server() -> None:
    used = [name for name in NAMES if name != "export"]
    statements = f"import gatehub\nfor name in {used!r}: getattr(gatehub, name)"
    assert loaded_after(statements, HEAVY) == []


def test_the_check_for_heavy_packages_sees_one() -> None:
    assert loaded_after("import typer", HEAVY) == ["typer"]
