"""Many pushes to one name at once: each lands once, in order, or is refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from gatehub.errors import HubConflictError, RevisionNotFoundError
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.protocol import PushResult
from tests.hub.plain import REPO, contents, fetch, push, write_folder
from tests.source_tree import ROOT


def check_history(hub: FolderHub, commits: set[str]) -> list[str]:
    """The messages of a gapless history of exactly these commits, oldest first."""
    rows = list(reversed(hub.list_revisions(REPO)))
    assert {row.commit for row in rows} == commits
    assert [row.parent for row in rows] == [None, *(row.commit for row in rows[:-1])]
    assert [row.branches for row in rows] == [()] * (len(rows) - 1) + [("main",)]
    return [row.message for row in rows]


def test_threads_that_push_different_content(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    folders = [write_folder(tmp_path / str(i), i) for i in range(8)]
    barrier = Barrier(8)

    def push_until_it_lands(folder: Path) -> tuple[str, list[HubConflictError]]:
        refusals: list[HubConflictError] = []
        barrier.wait()
        while True:
            try:
                return push(hub, folder, message=folder.name).commit, refusals
            except HubConflictError as error:
                refusals.append(error)

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(push_until_it_lands, folders))

    commits = {commit for commit, _ in outcomes}
    assert len(commits) == 8
    assert sorted(check_history(hub, commits)) == [folder.name for folder in folders]
    refusals = [error for _, errors in outcomes for error in errors]
    assert refusals  # all eight began on an empty branch
    for error in refusals:
        assert error.found in commits
        assert error.expected in {None, *commits}
        assert error.expected != error.found
        assert f"expected its head to be {error.expected or 'no commit yet'}" in error.message
        assert f"but it is {error.found}" in error.message
    for i, (commit, _) in enumerate(outcomes):
        assert fetch(hub, commit, tmp_path / f"back{i}") == contents(folders[i])


def test_threads_that_push_the_same_content(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    folder = write_folder(tmp_path / "one", 1)
    barrier = Barrier(8)

    def start_together(_: int) -> PushResult:
        barrier.wait()
        return push(hub, folder, tag="v1")

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(start_together, range(8)))

    assert [result.created for result in results].count(True) == 1
    assert len({result.commit for result in results}) == 1
    (row,) = hub.list_revisions(REPO)
    assert (row.commit, row.tags) == (results[0].commit, ("v1",))


def test_one_of_many_gets_the_tag(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    folders = [write_folder(tmp_path / str(i), i) for i in range(4)]
    barrier = Barrier(4)

    def push_to_own_branch(folder: Path) -> PushResult | HubConflictError:
        barrier.wait()
        try:
            return push(hub, folder, revision=f"branch-{folder.name}", tag="v1")
        except HubConflictError as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(push_to_own_branch, folders))

    tagged = hub.resolve(REPO, "v1")
    refused = [outcome for outcome in outcomes if isinstance(outcome, HubConflictError)]
    landed = [outcome.commit for outcome in outcomes if isinstance(outcome, PushResult)]
    assert landed == [tagged]
    assert len(refused) == 3
    for error in refused:
        assert error.found == tagged
        assert f"The tag 'v1' of acme/birds names {tagged}" in error.message


def test_processes_that_push_different_content(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    folders = [
        [write_folder(tmp_path / f"{p}-{i}", 10 * p + i) for i in range(5)] for p in range(4)
    ]
    command = [sys.executable, "-m", "tests.hub.pusher", "race", str(tmp_path / "hub")]
    processes = [
        subprocess.Popen(
            [*command, *map(str, own)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in folders
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outcomes = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        outcomes += [json.loads(line) for line in output.splitlines()]

    assert len(outcomes) == 20
    landed = {outcome["commit"]: outcome["folder"] for outcome in outcomes if "commit" in outcome}
    messages = check_history(hub, set(landed))
    assert sorted(messages) == sorted(landed.values())
    for p in range(4):  # what one process pushed stands in the order in which it pushed
        own = [message for message in messages if message.startswith(f"{p}-")]
        assert own == sorted(own)
    for outcome in outcomes:
        if "commit" not in outcome:
            assert outcome["found"] in landed
            assert outcome["expected"] in {"", *landed}
            assert outcome["expected"] != outcome["found"]


def test_a_push_that_lost_reports_the_newest_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FolderHub(tmp_path / "hub")
    folders = [write_folder(tmp_path / str(i), i) for i in range(4)]
    first = push(hub, folders[0]).commit
    later = []
    put = hub._disk.put

    def be_overtaken_twice(*arguments: object) -> None:
        monkeypatch.setattr(hub._disk, "put", put)
        later.extend([push(hub, folders[1]).commit, push(hub, folders[2]).commit])

    monkeypatch.setattr(hub._disk, "put", be_overtaken_twice)

    with pytest.raises(HubConflictError, match="to put yours on top") as caught:
        push(hub, folders[3])

    assert (caught.value.expected, caught.value.found) == (first, later[1])
    manifests = {path.stem for path in (tmp_path / "hub" / "repos" / REPO / "manifests").iterdir()}
    (refused,) = manifests - {first, *later}
    with pytest.raises(RevisionNotFoundError):  # what was refused is nobody's commit
        hub.resolve(REPO, refused)
    assert push(hub, folders[3]).created
    assert [row.commit for row in hub.list_revisions(REPO)][1:] == [*reversed(later), first]


@pytest.mark.parametrize("same", [True, False])
def test_a_network_drive_may_list_the_winner_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    folder, other = write_folder(tmp_path / "1", 1), write_folder(tmp_path / "2", 2)
    winner = push(FolderHub(tmp_path / "hub"), folder).commit
    hub = FolderHub(tmp_path / "hub")
    monkeypatch.setattr(hub._disk, "names", lambda key: [])

    if same:
        result = push(hub, folder)
        assert (result.commit, result.created) == (winner, False)
    else:
        with pytest.raises(HubConflictError) as caught:
            push(hub, other)
        assert (caught.value.expected, caught.value.found) == (None, winner)
