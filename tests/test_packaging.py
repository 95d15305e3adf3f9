"""What pyproject.toml declares, held against what is in the tree."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import gatehub
from tests.source_tree import ROOT, TREES, imports, python_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# Distributions whose package has another name than they have.
IMPORTED_AS = {
    "opentelemetry-sdk": "opentelemetry",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}

# Needed by annotations under TYPE_CHECKING alone, and part of every type checker.
TYPING_ONLY = {"typing_extensions"}

REQUIREMENTS = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]


def package_folder(package: str) -> Path:
    """Where a package's files lie in the repository."""
    tree = max((name for name in TREES if f"{package}.".startswith(f"{name}.")), key=len)
    return TREES[tree].joinpath(*package.removeprefix(tree).split("."))


def test_every_folder_of_modules_is_a_listed_package() -> None:
    folders = {path.parent for path in python_files().values()}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]

    assert {package_folder(package) for package in listed} == folders
    assert all((folder / "__init__.py").is_file() for folder in folders)
    assert listed == sorted(listed)


def test_package_dir_maps_the_trees() -> None:
    mapping = PYPROJECT["tool"]["setuptools"]["package-dir"]

    assert {package: ROOT / folder for package, folder in mapping.items()} == TREES


def test_every_data_file_is_declared() -> None:
    data = {
        path
        for folder in TREES.values()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    declared = {
        path
        for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in package_folder(package).glob(pattern)
    }

    assert declared == data
    assert TREES["gatehub"] / "py.typed" in data


def test_every_third_party_import_is_declared() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    optional = [
        Requirement(line)
        for extra, lines in extras.items()
        if extra not in {"test", "dev"}
        for line in lines
    ]
    declared = {
        IMPORTED_AS.get(requirement.name, requirement.name.replace("-", "_"))
        for requirement in REQUIREMENTS + optional
    }

    undeclared = {
        f"{module} imports {package}"
        for module, path in python_files().items()
        for _, target in imports(path.read_text("utf-8"))
        for package in [target.partition(".")[0]]
        if package not in sys.stdlib_module_names | TYPING_ONLY | declared | {"gatehub"}
    }

    assert undeclared == set()


@pytest.mark.parametrize(
    ("system", "machine", "build"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("win32", "ARM64", "onnxruntime"),
    ],
)
def test_exactly_one_onnxruntime_installs(system: str, machine: str, build: str) -> None:
    platform = {"sys_platform": system, "platform_machine": machine}
    builds = [
        requirement.name
        for requirement in REQUIREMENTS
        if requirement.name.startswith("onnxruntime")
        and requirement.marker is not None
        and requirement.marker.evaluate(platform)
    ]

    assert builds == [build]


def test_the_version_is_the_declared_one() -> None:
    assert gatehub.__version__ == PYPROJECT["project"]["version"]


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="gatehub")

    assert callable(script.load())
