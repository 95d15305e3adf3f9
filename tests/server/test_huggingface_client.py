"""huggingface_hub's own client, unmodified, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from gatehub.server import running_server
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import offline, picture


@pytest.fixture
def engine() -> Any:
    return LinearEngine(digits=[str(digit) for digit in range(10)])


@pytest.fixture
def url(engine: Any) -> Iterator[str]:
    with running_server(engine) as url:
        yield f"{url}/tasks/digits"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture(1))
    return path


def test_a_path_is_classified(url: str, engine: Any, photo: Path) -> None:
    answer = InferenceClient().image_classification(photo, model=url)
    expected = offline(engine, "digits", photo.read_bytes())[:5]
    assert [(entry.label, entry.score) for entry in answer] == expected


def test_bytes_are_classified(url: str, photo: Path) -> None:
    client = InferenceClient(model=url)
    by_path = client.image_classification(photo)
    assert client.image_classification(photo.read_bytes()) == by_path


def test_parameters_arrive(url: str, engine: Any, photo: Path) -> None:
    client = InferenceClient(model=url)
    answer = client.image_classification(photo, top_k=2)
    expected = offline(engine, "digits", photo.read_bytes())[:2]
    assert [(entry.label, entry.score) for entry in answer] == expected
    raw = client.image_classification(photo, top_k=10, function_to_apply="none")
    assert abs(sum(entry.score for entry in raw) - 1) > 1e-3


def test_the_sentence_of_an_error_reaches_the_user(url: str, photo: Path) -> None:
    with pytest.raises(HfHubHTTPError, match="birds"):
        InferenceClient().image_classification(photo, model=url.replace("digits", "birds"))
