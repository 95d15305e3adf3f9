"""A command that a signal ends cleans up behind itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gatehub.cli._signals import unwind_on_signals

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's"),
    pytest.mark.usefixtures("signals_of_a_terminal"),
]

# Says when it is about to translate, and is no faster on a fast machine.
EXPORT = """
import sys, time
import gatehub.export.onnx as onnx
from gatehub.cli import main

def wait(*arguments, **options):
    print("translating", flush=True)
    time.sleep(600)

onnx.translate = wait
sys.argv = ["gatehub", *sys.argv[1:]]
main()
"""

# The second signal comes while it cleans up.
BOTH = """
import os, signal, time
from gatehub.cli._signals import unwind_on_signals

unwind_on_signals()
try:
    print("ready", flush=True)
    while True:  # signal.pause() would wait for another one if it came just before
        time.sleep(0.05)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("cleaned")
"""

# Python drops what is raised in a destructor, and so while a worker is forked.
DROPPED = """
import os, signal, sys, time
from gatehub.cli._signals import unwind_on_signals

unwind_on_signals()

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(100):
            time.sleep(0)

try:
    Deaf()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.05)
    print("never heard")
except KeyboardInterrupt:
    print("interrupted")
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def demo_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was never trained, on the backbone that ships with the package."""
    from gatehub.adapter import Adapter
    from gatehub.backbone import load_backbone
    from gatehub.gates.attach import attach_gates

    model = attach_gates(load_backbone("demo"), labels=("crow", "jay"))
    return Adapter.from_model(model, task="birds").save(tmp_path_factory.mktemp("demo") / "birds")


def test_a_file_that_was_being_made_is_gone(demo_adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "birds.onnx"
    out.write_bytes(b"the last good one")
    with start(EXPORT, "export", demo_adapter, "--out", out) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "translating\n"
            begun = [path.name for path in tmp_path.iterdir() if path != out]
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert len(begun) == 1
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == b"the last good one"


def test_a_second_signal_does_not_end_the_cleaning_up() -> None:
    with start(BOTH) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGHUP)
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (128 + signal.SIGHUP, "cleaned\n", "")


@pytest.mark.parametrize(
    ("number", "left"),
    [(signal.SIGTERM, (128 + signal.SIGTERM, "")), (signal.SIGINT, (0, "interrupted\n"))],
)
def test_a_signal_that_python_drops_is_sent_again(number: int, left: tuple[int, str]) -> None:
    with start(DROPPED, int(number)) as process:
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (*left, "")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_what_the_caller_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `nohup`."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    number = signal.Signals[name]
    before = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)}
    try:
        for n in before:
            signal.signal(n, signal.SIG_DFL)
        signal.signal(number, signal.SIG_IGN)
        unwind_on_signals()
        taken = {n for n in before if signal.getsignal(n) not in (signal.SIG_DFL, signal.SIG_IGN)}
        assert taken == before.keys() - {number}
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
