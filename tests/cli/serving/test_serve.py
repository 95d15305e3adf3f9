"""gatehub serve: what its options come to."""

from __future__ import annotations

import gc
import io
import logging
import pickle
import re
import shutil
import socket
from pathlib import Path
from typing import Any, get_args

import pytest

from gatehub.cli.serving import _options
from gatehub.cli.serving._engine import EnginePlan
from gatehub.errors import SelfCheckError
from gatehub.runtime.engine import Engine
from gatehub.server import ServerSettings
from gatehub.server.observing.request_log import LOGGER
from tests.cli.conftest import Gatehub

# Option, setting, and a value that is not the default.
LIMITS = {
    "--max-body-bytes": "max_body_bytes",
    "--max-pixels": "max_pixels",
    "--max-resized-pixels": "max_resized_pixels",
    "--max-images": "max_images",
    "--max-requests": "max_requests",
    "--max-bytes-in-flight": "max_bytes_in_flight",
    "--max-connections": "max_connections",
    "--deadline": "deadline_s",
    "--header-timeout": "header_timeout_s",
    "--body-timeout": "body_timeout_s",
    "--drain-grace": "drain_grace_s",
    "--drain-timeout": "drain_timeout_s",
    "--max-batch": "max_batch",
    "--max-wait-ms": "max_wait_ms",
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters that were never trained, on the backbone that ships with the package."""
    from gatehub.adapter import Adapter
    from gatehub.backbone import load_backbone
    from gatehub.gates.attach import attach_gates

    model = attach_gates(load_backbone("demo"), labels=("crow", "jay"))
    place = tmp_path_factory.mktemp("demo")
    return {
        task: Adapter.from_model(model, task=task).save(place / task) for task in ("birds", "cars")
    }


@pytest.fixture
def birds(adapters: dict[str, Path]) -> Path:
    return adapters["birds"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `serve` was called with; it returns at once."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "gatehub.server.serve", lambda engine, **given: calls.append({"engine": engine, **given})
    )
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
    for alias in vars(_options).values():
        for option in get_args(alias)[1:]:
            names = str(option.param_decls) + str(option.default)
            if re.search("keep-going|path-prefix|unix-socket|log-format|workers", names):
                continue
            default = re.search(r"default: ([\d,]+)", option.help)
            assert default is not None, option.help
            name = option.default if isinstance(option.default, str) else option.param_decls[0]
            told[name] = int(default[1].replace(",", ""))
    assert told == {option: getattr(ServerSettings(), name) for option, name in LIMITS.items()}


def test_a_limit_that_is_none_is_refused(gatehub: Gatehub, birds: Path) -> None:
    ran = gatehub("serve", birds, "--max-requests", "0")
    assert ran.status == 2
    assert "--max-requests" in ran.err


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ([], "text"),
        (["--log-format", "json"], "json"),
        (["--format", "quiet"], "off"),
        (["--format", "quiet", "--log-format", "text"], "text"),
    ],
)
def test_the_form_of_the_log_arrives(
    gatehub: Gatehub, birds: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], form: str
) -> None:
    def serve(engine: Any, **_: Any) -> None:
        logging.getLogger("gatehub.server.requests").info("asked", extra={"request": {"a": 1}})
        logging.getLogger("gatehub.server").warning("look")

    monkeypatch.setattr("gatehub.server.serve", serve)
    ran = gatehub("serve", birds, "--port", 0, *options)
    lines = [line for line in ran.err.splitlines() if "Z" in line[:40]]
    assert len(lines) == (1 if form == "off" else 2)
    assert ('"a": 1' in lines[0]) == (form == "json")


def test_a_taken_port_is_told_before_anything_is_read(gatehub: Gatehub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = gatehub("serve", "there/is/no/such/folder", "--port", port)
    assert (ran.status, ran.out) == (1, "")
    assert f"Error: Cannot listen on 127.0.0.1 port {port}: Address already in use." in ran.err


def test_a_socket_in_a_folder_and_a_prefix_arrive(
    gatehub: Gatehub, birds: Path, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "gatehub.sock"
    assert gatehub("serve", birds, "--unix-socket", path, "--path-prefix", "/vision").status == 0
    assert served[0]["listener"].url == f"unix:{path}"
    assert served[0]["path_prefix"] == "/vision"
    assert not path.exists()
    ran = gatehub("serve", "nowhere", "--path-prefix", "vision")
    assert (ran.status, ran.out) == (1, "")
    assert "Error: The path prefix is 'vision'; expected a path" in ran.err


@pytest.fixture
def broken(birds: Path, tmp_path: Path) -> Path:
    """An adapter that is as long as it should be, and whose tensors are others."""
    folder = Path(shutil.copytree(birds, tmp_path / "broken"))
    tensors = folder / "gates.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4] + b"abcd")
    return folder


def test_one_broken_adapter_keeps_the_server_from_starting(
    gatehub: Gatehub, birds: Path, broken: Path, served: list[dict[str, Any]]
) -> None:
    ran = gatehub("serve", broken, birds, "--port", "0")
    assert (ran.status, ran.out, served) == (1, "", [])
    assert "gates.safetensors" in ran.err


def test_with_keep_going_the_sound_ones_are_served_and_the_others_reported(
    gatehub: Gatehub,
    birds: Path,
    broken: Path,
    served: list[dict[str, Any]],
) -> None:
    for order in ((broken, birds, "nowhere"), (birds, "nowhere", broken)):
        ran = gatehub("serve", *order, "--port", "0", "--keep-going")
        assert ran.status == 0, ran.err
        assert [info.task for info in served.pop()["engine"].tasks()] == ["birds"]
        assert f"Left out '{broken}': " in ran.err
        assert "Left out 'nowhere': " in ran.err
    ran = gatehub("serve", broken, "nowhere", "--port", "0", "--keep-going")
    assert (ran.status, served) == (1, [])


def test_with_keep_going_a_task_that_answers_otherwise_here_is_left_out_too(
    gatehub: Gatehub,
    adapters: dict[str, Path],
    served: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Engine.load

    def refuse(engine: Engine, task: str, place: Path) -> Any:
        if task == "cars":
            raise SelfCheckError("It answers otherwise.")
        return load(engine, task, place)

    monkeypatch.setattr(Engine, "load", refuse)
    arguments = ("serve", adapters["birds"], adapters["cars"], "--port", "0")
    ran = gatehub(*arguments)
    assert (ran.status, served) == (1, [])
    assert "Error: It answers otherwise." in ran.err
    assert gatehub(*arguments, "--keep-going").status == 0
    assert [info.task for info in served.pop()["engine"].tasks()] == ["birds"]
    ran = gatehub("serve", adapters["cars"], "--port", "0", "--keep-going")
    assert (ran.status, served) == (1, [])


def test_several_workers_are_given_what_an_engine_is_made_of(
    gatehub: Gatehub, birds: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def serve_workers(plan: Any, **given: Any) -> None:
        calls.append({"plan": plan, **given})
        given["on_ready"]("http://there")
        given["on_note"]("a note")

    monkeypatch.setattr("gatehub.server.serve_workers", serve_workers)
    options = ("--workers", 3, "--gates-mb", 7, "--path-prefix", "/vision", "--deadline", 9)
    ran = gatehub("serve", birds, broken, "--port", 0, "--keep-going", *options)
    assert (ran.status, ran.out) == (0, "Serving on http://there\n")
    assert "1 tasks in 3 processes" in ran.err
    assert "a note" in ran.err
    (call,) = calls
    assert (call["workers"], call["path_prefix"]) == (3, "/vision")
    assert call["settings"].deadline_s == 9
    plan = pickle.loads(pickle.dumps(call["plan"]))  # as it reaches a new process
    assert (plan.gates_mb, plan.log_format, dict(plan.places)) == (7, "text", {"birds": birds})


def test_a_workers_engine_comes_with_its_log_and_leaves_out_what_is_not_sound(
    birds: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = EnginePlan(
        places={"birds": birds, "broken": broken},
        task="birds",
        backbone=None,
        weights=None,
        device="auto",
        dtype="auto",
        folded_mb=None,
        gates_mb=None,
        keep_going=True,
        log_format="json",
    )
    stream, notes, root = io.StringIO(), list[str](), logging.getLogger()
    before, level = root.handlers[:], logging.getLogger(LOGGER).level
    monkeypatch.setattr("sys.stderr", stream)
    try:
        engine = plan(notes.append)
        gc.collect()
        logging.getLogger(LOGGER).info("asked", extra={"request": {"task": "birds"}})
    finally:
        root.handlers[:] = before
        logging.getLogger(LOGGER).setLevel(level)
    assert [info.task for info in engine.tasks()] == ["birds"]
    assert [note.partition(":")[0] for note in notes] == [f"Left out '{broken}'"]
    assert '"task": "birds"' in stream.getvalue()
