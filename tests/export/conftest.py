"""Exports that several tests look at; each takes seconds to make."""

from __future__ import annotations

import pytest

from tests.export.exports import Exported, export, make_resnet, make_standardised


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A ResNet at the default settings, in a folder of its own, where an older file was."""
    path = tmp_path_factory.mktemp("resnet") / "birds.onnx"
    path.write_bytes(b"an older one")
    return export(make_resnet(), path)


@pytest.fixture(scope="session")
def standardised(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small BiT, at opset 20."""
    path = tmp_path_factory.mktemp("standardised") / "birds.onnx"
    return export(make_standardised(), path, opset=20)
