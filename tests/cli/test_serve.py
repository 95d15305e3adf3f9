"""gatehub serve: what its options come to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from gatehub.cli import _serve_options
from gatehub.server import ServerSettings
from tests.cli.conftest import Gatehub

# Option, setting, and a value that is not the default.
LIMITS = {
    "--max-body-bytes": "max_body_bytes",
    "--max-pixels": "max_pixels",
    "--max-resized-pixels": "max_resized_pixels",
    "--max-requests": "max_requests",
    "--max-bytes-in-flight": "max_bytes_in_flight",
    "--max-connections": "max_connections",
    "--deadline": "deadline_s",
    "--header-timeout": "header_timeout_s",
    "--body-timeout": "body_timeout_s",
    "--max-batch": "max_batch",
    "--max-wait-ms": "max_wait_ms",
}


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was never trained, on the backbone that ships with the package."""
    from gatehub.adapter import Adapter
    from gatehub.backbone import load_backbone
    from gatehub.gates.attach import attach_gates

    model = attach_gates(load_backbone("demo"), labels=("crow", "jay"))
    return Adapter.from_model(model, task="birds").save(tmp_path_factory.mktemp("demo") / "birds")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `serve` was called with; it returns at once."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("gatehub.server.serve", lambda engine, **given: calls.append(given))
    return calls


def test_limits_arrive_and_others_keep_their_defaults(
    gatehub: Gatehub, birds: Path, served: list[dict[str, Any]]
) -> None:
    numbers = {option: 11 + place for place, option in enumerate(LIMITS)}
    options = [text for pair in numbers.items() for text in map(str, pair)]
    assert gatehub("serve", birds, *options).status == 0
    settings = served[0]["settings"]
    assert settings == ServerSettings(**{LIMITS[o]: number for o, number in numbers.items()})
    assert gatehub("serve", birds).status == 0
    assert served[1]["settings"] == ServerSettings()


def test_the_help_names_the_true_defaults() -> None:
    told = {}
    for alias in vars(_serve_options).values():
        for option in get_args(alias)[1:]:
            default = re.search(r"default: ([\d,]+)", option.help)
            assert default is not None, option.help
            name = option.default if isinstance(option.default, str) else option.param_decls[0]
            told[name] = int(default[1].replace(",", ""))
    assert told == {option: getattr(ServerSettings(), name) for option, name in LIMITS.items()}


def test_a_limit_that_is_none_is_refused(gatehub: Gatehub, birds: Path) -> None:
    ran = gatehub("serve", birds, "--max-requests", "0")
    assert ran.status == 2
    assert "--max-requests" in ran.err
