"""Sharing adapters in the shell, against a Hub on a loopback port."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Gatehub, Ran
from tests.hub.plain import contents
from tests.hub_server.faults import FOREVER, Fault
from tests.hub_server.serve import TestHub
from tests.hub_server.state import TOKEN

REPO = "acme/birds"
Run = Callable[..., Ran]


@pytest.fixture
def run(gatehub: Gatehub, test_hub: TestHub) -> Run:
    """The command, with HF_ENDPOINT at the test hub."""

    def run(*arguments: object) -> Ran:
        ran = gatehub(*arguments, env={"HF_ENDPOINT": test_hub.url, "COLUMNS": "200"})
        assert "Traceback" not in ran.err
        assert TOKEN not in ran.out + ran.err
        return ran

    return run


def test_push_search_pull(
    run: Run, test_hub: TestHub, adapter_folder: Path, tmp_path: Path
) -> None:
    plan = run("push", adapter_folder, REPO, "--dry-run", "--tag", "v1")
    assert ["tag", "v1"] in [line.split() for line in plan.out.splitlines()]
    assert "README.md, config.json, gates.safetensors" in plan.out
    assert "nothing yet" in plan.out
    assert test_hub.state.repositories == {}

    pushed = run("push", adapter_folder, REPO, "--tag", "v1", "--message", "first")
    commit = test_hub.state.repositories[REPO].tags["v1"]
    assert f"{test_hub.url}/{REPO}/tree/main" in pushed.out
    assert commit[:12] in pushed.out
    assert run("push", adapter_folder, REPO).out.startswith("Nothing new to push: acme/birds@main")

    (row,) = run("search", "--task", "bird", "--format", "json").json["adapters"]
    assert (row["repo"], row["backbone"], row["classes"]) == (REPO, "resnet18", 3)
    assert (row["accuracy"], row["commit"]) == (0.5, commit)
    table = run("search", "--backbone", "resnet18").out.splitlines()
    assert table[0].split() == [
        *("name", "task", "classes", "backbone", "gates", "size", "accuracy", "commit")
    ]
    assert run("search", "--author", "nobody").out == "The hub holds no such adapter.\n"

    out = tmp_path / "out"
    pulled = run("pull", f"{REPO}@v1", "--out", out, "--format", "json").json
    assert (pulled["path"], pulled["commit"]) == (str(out), commit)
    assert contents(out) == contents(adapter_folder)
    revisions = run("list", REPO, "--format", "json").json["revisions"]
    assert [r["message"] for r in revisions] == ["first", "initial commit"]


def test_help_shows_what_stands_in_brackets(gatehub: Gatehub) -> None:
    shown = " ".join(gatehub("pull", "--help").out.replace("│", " ").split())
    assert "pull [OPTIONS] [ORG/NAME[@REVISION]]" in shown
    assert "[default: GATEHUB_HUB, or else" in shown
    assert "[default: a cache]" in shown
    shown = " ".join(gatehub("serve", "--help").out.replace("│", " ").split())
    assert "ORG/NAME[@REVISION] on a hub" in shown
    assert "[default: the adapter's own]" in shown


def test_tables_fit_their_terminal_and_stay_whole_in_pipes(
    gatehub: Gatehub, adapter_folder: Path, tmp_path: Path
) -> None:
    hub, repo = tmp_path / "hub", "acme/birds-of-our-garden-by-the-old-mill-and-the-river"
    gatehub("push", adapter_folder, repo, "--hub", hub)
    for columns in (60, 80, 100):
        lines = gatehub("list", "--hub", hub, env={"COLUMNS": str(columns)}).out.splitlines()
        assert max(map(len, lines)) <= columns
        if columns >= 80:
            assert "accuracy" in lines[0]
            assert "".join(line.split(" ")[0] for line in lines[1:]) == repo  # folded, not cut
    piped = gatehub("list", "--hub", hub, env={"COLUMNS": ""}).out.splitlines()
    assert piped[1].split()[:2] == [repo, "birds"]


def test_nothing_that_a_stranger_wrote_reaches_the_terminal_as_a_command(
    run: Run, test_hub: TestHub, adapter_folder: Path
) -> None:
    run("push", adapter_folder, REPO)
    repository = test_hub.state.repositories[REPO]
    head = repository.commits[repository.branches["main"]]
    repository.add("main", head.files, "wipe\x1b[2J the screen")
    (shown,) = [line for line in run("list", REPO).out.splitlines() if "wipe" in line]
    assert r"wipe\x1b[2J the screen" in shown
    test_hub.faults.append(
        Fault("/api/", status=403, headers={"X-Error-Message": "\x1b[2Jno"}, times=FOREVER)
    )
    assert "\x1b" not in run("pull", REPO).err


def test_list_shows_the_cache_where_no_hub_is_named(run: Run, adapter_folder: Path) -> None:
    assert "The cache holds no adapters" in run("list").out
    run("push", adapter_folder, REPO)
    folder = run("pull", REPO, "--format", "quiet").out.strip()
    (row,) = run("list", "--format", "json").json["adapters"]
    assert (row["repo"], row["path"], row["accuracy"]) == (REPO, folder, 0.5)
    assert row["hub"].startswith("127.0.0.1-")


def test_a_lock_file(run: Run, adapter_folder: Path, tmp_path: Path) -> None:
    run("push", adapter_folder, REPO)
    lock = tmp_path / "gatehub.lock"
    first = run("pull", REPO, "--lock", lock, "--format", "json").json
    assert json.loads(lock.read_text())["adapters"][REPO]["commit"] == first["commit"]
    (again,) = run("pull", "--lock", lock, "--format", "json").json["adapters"]
    assert again == first
    assert run("pull").status == 2


def test_notes_are_on_stderr(run: Run, test_hub: TestHub, adapter_folder: Path) -> None:
    run("push", adapter_folder, REPO)
    test_hub.state.put(REPO, {"evil.pkl": b"x"})
    ran = run("pull", REPO)
    assert ran.err.startswith("acme/birds also holds 'evil.pkl', a pickle")
    test_hub.faults.append(Fault("", drop=True, times=FOREVER))
    stale = run("pull", REPO)
    assert (stale.status, stale.out) == (0, ran.out)
    assert "which may be stale." in stale.err


def test_a_hub_name_stands_for_a_folder(run: Run, adapter_folder: Path, tmp_path: Path) -> None:
    run("push", adapter_folder, REPO)
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    # It is found and loaded; this test's backbone lives in memory only.
    ran = run("predict", REPO, tmp_path / "x.png")
    assert ran.status == 1
    assert "has source 'memory', from which it cannot be loaded" in ran.err
    missing = run("predict", "acme/none", tmp_path / "x.png")
    assert missing.err.startswith("Error: 'acme/none' is not a folder here. There is no repository")


@pytest.mark.parametrize(
    ("fault", "sentence", "hint"),
    [
        (Fault("/api/", status=429, headers={"Retry-After": "9"}), "too many requests", "Wait 9 s"),
        (Fault("/api/", status=401), "does not know the token that was sent", "hf auth login"),
        (
            Fault("/api/", status=403, headers={"X-Error-Message": "no write scope"}),
            "answered 403 and said: no write scope",
            "",
        ),
        (
            Fault("/api/", status=403, headers={"X-Error-Message": f"token {TOKEN}?"}),
            "said: token hf_…",
            "",
        ),
        (Fault("/api/", status=502), "answered 502", "Try again later"),
        (Fault("/api/", drop=True), "cannot be reached", "Check the network"),
    ],
)
def test_errors_are_one_sentence_and_exit_with_1(
    run: Run, test_hub: TestHub, adapter_folder: Path, fault: Fault, sentence: str, hint: str
) -> None:
    fault.times = FOREVER
    test_hub.faults.append(fault)
    for arguments in (("push", adapter_folder, REPO), ("pull", REPO), ("search",)):
        ran = run(*arguments)
        assert (ran.status, ran.out) == (1, "")
        lines = ran.err.splitlines()
        assert lines[0].startswith("Error: ")
        assert sentence in lines[0]
        assert hint in ran.err
        assert len(lines) <= 2


def test_card(run: Run, adapter_folder: Path) -> None:
    ran = run("card", adapter_folder)
    assert ran.status == 0
    assert ran.out.startswith("---\nlibrary_name: gatehub\n")
    assert "It names no license" in ran.err
    assert run("card", adapter_folder, "--license", "mit").status == 2
    shown = run("card", adapter_folder, "--license", "mit", "--write", "--format", "json").json
    assert shown["valid"] is True
    assert shown["metadata"]["license"] == "mit"
    card = adapter_folder / "README.md"
    card.write_text(card.read_text().replace("library_name: gatehub", "library_name: timm"))
    broken = run("card", adapter_folder, "--format", "quiet")
    assert broken.status == 1
    assert broken.out == "Its library_name is 'timm'; expected 'gatehub'.\n"


def test_a_folder_hub_is_looked_after(run: Run, adapter_folder: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    assert run("hub", "verify", hub).status == 1
    run("push", adapter_folder, REPO, "--hub", hub, "--tag", "v1")
    assert "all sound" in run("hub", "verify", hub).out
    left = hub / "blobs" / ".gatehub-0123456789abcdef.tmp"
    left.write_bytes(b"x" * 7)
    os.utime(left, (0, 0))
    assert run("hub", "gc", hub, "--format", "json").json == {
        **{"blobs": 0, "manifests": 0, "temporary": 1, "bytes": 7}
    }
    run("hub", "delete", REPO, "--tag", "v1", "--hub", hub)
    assert run("pull", f"{REPO}@v1", "--hub", hub).status == 1
    run("hub", "delete", REPO, "--hub", hub)
    assert run("list", "--hub", hub).out == "The hub holds no adapters.\n"
    assert run("hub", "gc", hub, "--older-than-hours", 0, "--format", "json").json["blobs"] == 3
    assert not [path for path in (hub / "blobs").rglob("*") if path.is_file()]
    blob = hub / "blobs" / "ab" / ("ab" * 32)
    run("push", adapter_folder, REPO, "--hub", hub)
    for blob in (hub / "blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(b"")
    ran = run("hub", "verify", hub, "--format", "json")
    assert ran.status == 1
    assert len(json.loads(ran.out)["problems"]) == 3
    assert run("hub", "gc", "https://hub.example").status == 1
