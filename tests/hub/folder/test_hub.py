"""A folder hub: what was pushed comes back, under every name it has, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatehub.errors import (
    HubAbsentError,
    HubConflictError,
    HubError,
    HubIntegrityError,
    HubNameError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from gatehub.hub.files import StoredFile
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.protocol import Query
from tests.hub.plain import REPO, SUMMARY, contents, digests, fetch, list_rows, push, write_folder


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "one", 1)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "two", 2)


def blob(hub_root: Path, folder: Path, name: str) -> Path:
    digest = digests(folder)[name].sha256
    return hub_root / "blobs" / digest[:2] / digest


def test_what_was_pushed_comes_back(hub: FolderHub, folder: Path, tmp_path: Path) -> None:
    result = push(hub, folder)

    assert (result.repo, result.revision, result.created) == (REPO, "main", True)
    assert result.url == (tmp_path / "hub" / "repos" / REPO).as_uri()
    assert hub.resolve(REPO, "main") == result.commit
    assert hub.files(REPO, result.commit) == digests(folder)
    assert fetch(hub, result.commit, tmp_path / "back") == contents(folder)


def test_the_layout_is_the_documented_one(hub: FolderHub, folder: Path, tmp_path: Path) -> None:
    commit = push(hub, folder, tag="v1").commit

    root = tmp_path / "hub"
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    blobs = {str(blob(root, folder, name).relative_to(root)) for name in contents(folder)}
    manifest = f"repos/{REPO}/manifests/{commit}.json"
    head, tag = f"repos/{REPO}/refs/heads/main/00000001", f"repos/{REPO}/refs/tags/v1"
    assert found == {*blobs, manifest, head, tag}
    assert (root / head).read_text() == (root / tag).read_text() == f"{commit}\n"
    assert hashlib.sha256((root / manifest).read_bytes()).hexdigest() == commit


def test_the_same_content_makes_no_commit(hub: FolderHub, folder: Path) -> None:
    first = push(hub, folder)
    second = push(hub, folder, message="other words")

    assert second == replace(first, created=False)
    assert len(hub.list_revisions(REPO)) == 1


def test_content_that_was_once_there_is_a_new_commit(
    hub: FolderHub, folder: Path, other: Path
) -> None:
    results = [push(hub, folder), push(hub, other), push(hub, folder)]

    assert len({result.commit for result in results}) == 3
    assert [row.commit for row in hub.list_revisions(REPO)] == [
        result.commit for result in reversed(results)
    ]


def test_history_tells_who_stands_on_whom(hub: FolderHub, folder: Path, other: Path) -> None:
    first = push(hub, folder, message="one", tag="v1").commit
    second = push(hub, other, message="two").commit
    push(hub, other, tag="v2")
    side = push(hub, folder, revision="side", message="beside").commit

    rows = hub.list_revisions(REPO)

    assert [(row.commit, row.parent, row.message, row.branches, row.tags) for row in rows] == [
        (second, first, "two", ("main",), ("v2",)),
        (first, None, "one", (), ("v1",)),
        (side, None, "beside", ("side",), ()),
    ]
    assert rows[0].created > rows[1].created


def test_every_name_of_a_commit_resolves(hub: FolderHub, folder: Path, other: Path) -> None:
    first = push(hub, folder, tag="v1").commit
    second = push(hub, other).commit
    side = push(hub, folder, revision="side").commit

    for revision, commit in {
        "main": second,
        "v1": first,
        "side": side,
        first: first,
        first.upper(): first,
        first[:12]: first,
        second[:6]: second,
    }.items():
        assert hub.resolve(REPO, revision) == commit


def test_a_branch_goes_before_the_beginning_of_a_commit(hub: FolderHub, folder: Path) -> None:
    commit = push(hub, folder).commit
    branch = push(hub, folder, revision=commit[:8]).commit

    assert hub.resolve(REPO, commit[:8]) == branch != commit
    assert hub.resolve(REPO, commit[:9]) == commit


def test_an_ambiguous_beginning_lists_the_commits(
    hub: FolderHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two ids with four digits in common would take some 300 pushes.
    monkeypatch.setattr("gatehub.hub.folder.hub.is_commit_prefix", lambda revision: True)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # it is what a push waits for
    commits = {push(hub, folder, revision=f"b{i}").commit for i in range(17)}
    digits = [commit[0] for commit in commits]
    twice = next(digit for digit in digits if digits.count(digit) > 1)

    with pytest.raises(RevisionNotFoundError, match="commits of acme/birds begin with") as caught:
        hub.resolve(REPO, twice)

    assert all((commit in str(caught.value)) == (commit[0] == twice) for commit in commits)


def test_what_is_not_there_is_told_apart(hub: FolderHub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"There is no hub at .*the first push makes a hub"):
        hub.resolve(REPO, "main")
    with pytest.raises(HubError, match="There is no hub at"):
        list_rows(hub)
    (tmp_path / "hub").mkdir()
    assert list_rows(hub) == []
    # An empty folder may be a mount point without its drive.
    with pytest.raises(HubAbsentError, match="There is no hub at"):
        hub.list_revisions(REPO)
    push(hub, folder, tag="v1")
    with pytest.raises(RepositoryNotFoundError, match="has no acme/bees"):
        hub.resolve("acme/bees", "main")
    for revision in ("v2", "0" * 64, "0000"):
        with pytest.raises(
            RevisionNotFoundError,
            match=f"no branch, tag or commit '{revision}'. Its branches and tags are main, v1.",
        ):
            hub.resolve(REPO, revision)


def test_a_tag_never_moves(hub: FolderHub, folder: Path, other: Path, tmp_path: Path) -> None:
    first = push(hub, folder, tag="v1").commit
    assert push(hub, folder, tag="v1").commit == first

    with pytest.raises(HubConflictError, match=f"The tag 'v1' of acme/birds names {first}"):
        push(hub, other, tag="v1")

    assert [row.commit for row in hub.list_revisions(REPO)] == [first]  # refused before it landed
    assert not blob(tmp_path / "hub", other, "gates.safetensors").exists()


def test_a_tag_and_a_branch_share_no_name(hub: FolderHub, folder: Path) -> None:
    push(hub, folder, tag="v1")

    for tag in ("main", "side"):
        with pytest.raises(HubNameError, match=f"'{tag}' is a branch"):
            push(hub, folder, revision="side", tag=tag)
    with pytest.raises(HubNameError, match="'v1' is a tag of acme/birds"):
        push(hub, folder, revision="v1")
    assert len(hub.list_revisions(REPO)) == 1


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "f" * 64])
def test_hostile_refs_are_refused(hub: FolderHub, folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(HubNameError):
        push(hub, folder, revision=name)
    with pytest.raises(HubNameError):
        push(hub, folder, tag=name)
    assert not (tmp_path / "hub").exists()


def test_hostile_repositories_are_refused(hub: FolderHub, folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    uses: list[Callable[[str], object]] = [
        lambda repo: push(hub, folder, repo),
        lambda repo: hub.resolve(repo, "main"),
        lambda repo: hub.files(repo, "0" * 64),
        hub.list_revisions,
    ]
    for use in uses:
        for repo in ("../birds", "acme/../../x", "/etc/passwd", "acme", "acme/.."):
            with pytest.raises(HubNameError, match="is not the name of a repository"):
                use(repo)
    assert sorted(tmp_path.iterdir()) == before


def test_what_no_reader_would_accept_is_not_written(
    hub: FolderHub, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match="cannot be recorded: its message holds control characters"):
        push(hub, folder, message="\x1b[2J")
    with pytest.raises(HubError, match="cannot be recorded: it holds NaN"):
        push(hub, folder, summary=replace(SUMMARY, accuracy=float("nan")))
    with pytest.raises(HubError, match=r"cannot be recorded: '\.\./x' is not the name of a file"):
        push(hub, folder, files={"../x": StoredFile(bytes=0, sha256="0" * 64)})
    assert not (tmp_path / "hub").exists()


def test_a_flipped_bit_is_noticed_and_another_push_repairs_it(
    hub: FolderHub, folder: Path, tmp_path: Path
) -> None:
    commit = push(hub, folder).commit
    path = blob(tmp_path / "hub", folder, "gates.safetensors")
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)

    with pytest.raises(HubIntegrityError, match="Push the same adapter again"):
        fetch(hub, commit, tmp_path / "bad")
    assert push(hub, folder).created is False
    assert fetch(hub, commit, tmp_path / "good") == contents(folder)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data.replace(b"a push", b"A push"), "does not hold the bytes written"),
        (lambda data: data[:-1], "does not hold the bytes written"),
        (lambda data: data + b" " * 1_000_000, "is over its limit"),
        (lambda data: b"", "does not hold the bytes written"),
    ],
)
def test_a_damaged_manifest_is_noticed(
    hub: FolderHub,
    folder: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    problem: str,
) -> None:
    commit = push(hub, folder).commit
    path = tmp_path / "hub" / "repos" / REPO / "manifests" / f"{commit}.json"
    path.write_bytes(damage(path.read_bytes()))

    for use in (lambda: hub.files(REPO, commit), lambda: push(hub, folder)):
        with pytest.raises(HubIntegrityError, match=problem):
            use()


def test_one_damaged_repository_does_not_hide_the_others(
    hub: FolderHub, folder: Path, tmp_path: Path
) -> None:
    commit = push(hub, folder).commit
    push(hub, folder, "acme/sound")
    (tmp_path / "hub" / "repos" / REPO / "manifests" / f"{commit}.json").write_text("{}")
    told: list[str] = []

    rows = hub.list_adapters(Query(), told.append)

    assert [row.repo for row in rows] == ["acme/sound"]
    (sentence,) = told
    assert sentence.startswith(f"{REPO} is left out: ")
    assert "does not hold the bytes written" in sentence


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_one_repository_that_may_not_be_read_does_not_hide_the_others(
    hub: FolderHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, folder)
    push(hub, folder, "acme/sound")
    opened = os.open

    # Whoever runs the tests may read all.
    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if REPO in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    told: list[str] = []
    assert [row.repo for row in hub.list_adapters(Query(), told.append)] == ["acme/sound"]
    assert told == [f"{REPO} is left out: Permission denied."]


def test_a_missing_manifest_is_noticed(hub: FolderHub, folder: Path, tmp_path: Path) -> None:
    commit = push(hub, folder).commit
    (tmp_path / "hub" / "repos" / REPO / "manifests" / f"{commit}.json").unlink()

    with pytest.raises(HubIntegrityError, match=f"{commit}.json is missing from the hub"):
        hub.list_revisions(REPO)


def hostile_commit(root: Path, change: Callable[[dict[str, object]], None], good: str) -> str:
    """Write a manifest whose digest is right, and make it the head, as a stranger might."""
    manifests = root / "repos" / REPO / "manifests"
    record = json.loads((manifests / f"{good}.json").read_bytes())
    change(record)
    data = json.dumps(record).encode()
    commit = hashlib.sha256(data).hexdigest()
    (manifests / f"{commit}.json").write_bytes(data)
    (root / "repos" / REPO / "refs" / "heads" / "main" / "00000002").write_text(f"{commit}\n")
    return commit


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".ssh"])
def test_a_hostile_manifest_is_refused(
    hub: FolderHub, folder: Path, tmp_path: Path, name: str
) -> None:
    good = push(hub, folder).commit
    file = {"bytes": 8, "sha256": digests(folder)["README.md"].sha256}

    commit = hostile_commit(
        tmp_path / "hub", lambda record: record.update(files={name: file}), good
    )

    assert hub.resolve(REPO, "main") == commit
    for use in (lambda: hub.files(REPO, commit), lambda: push(hub, folder)):
        with pytest.raises(HubIntegrityError, match=r"is not a manifest: .* is not the name of"):
            use()


@pytest.mark.parametrize("text", ["", "main", "../../etc/passwd", "F" * 64, "0" * 63, "é" * 64])
def test_a_ref_holds_a_commit_id(hub: FolderHub, folder: Path, tmp_path: Path, text: str) -> None:
    push(hub, folder)
    ref = tmp_path / "hub" / "repos" / REPO / "refs" / "heads" / "main" / "00000002"
    ref.write_bytes(text.encode("latin-1"))

    with pytest.raises(HubIntegrityError, match="00000002 does not hold a commit id"):
        hub.resolve(REPO, "main")


def test_a_folder_that_looks_like_a_commit_is_no_branch(
    hub: FolderHub, folder: Path, other: Path, tmp_path: Path
) -> None:
    first = push(hub, folder).commit
    second = push(hub, other).commit
    heads = tmp_path / "hub" / "repos" / REPO / "refs" / "heads"
    (heads / first).mkdir()
    (heads / first / "00000001").write_text(f"{second}\n")

    assert hub.resolve(REPO, first) == first
    assert [row.branches for row in hub.list_revisions(REPO)] == [("main",), ()]


def test_leftovers_and_foreign_files_are_not_seen(
    hub: FolderHub, folder: Path, tmp_path: Path
) -> None:
    commit = push(hub, folder).commit
    repos = tmp_path / "hub" / "repos"
    (repos / REPO / "refs" / "heads" / "main" / ".gatehub-0123456789abcdef.tmp").write_text("half")
    (repos / REPO / "refs" / "heads" / "main" / "notes.txt").write_text("mine")
    (repos / REPO / "refs" / "heads" / "empty").mkdir()
    (repos / "acme" / "unborn" / "manifests").mkdir(parents=True)
    (repos / "Thumbs.db").write_text("")
    (repos / ".DS_Store").write_text("")

    assert [row.repo for row in list_rows(hub)] == [REPO]
    assert [row.branches for row in hub.list_revisions(REPO)] == [("main",)]
    assert hub.resolve(REPO, "main") == commit
    with pytest.raises(RepositoryNotFoundError):
        hub.resolve("acme/unborn", "main")


def test_a_listing_shows_the_newest_of_each(hub: FolderHub, folder: Path, other: Path) -> None:
    push(hub, folder)
    newest = push(hub, other, summary=replace(SUMMARY, accuracy=None, classes=3)).commit
    push(hub, folder, revision="a-branch")
    side = push(hub, folder, "zoo/bees", revision="trial").commit

    birds, bees = list_rows(hub)

    assert (birds.repo, birds.revision, birds.commit) == (REPO, "main", newest)
    assert (birds.task, birds.backbone, birds.gates) == ("birds", "resnet18.a1_in1k", "auto")
    assert (birds.classes, birds.accuracy) == (3, None)
    assert birds.bytes == len(contents(other)["gates.safetensors"])
    assert birds.updated == hub.list_revisions(REPO)[0].created
    assert (bees.repo, bees.revision, bees.commit) == ("zoo/bees", "trial", side)
    assert (bees.classes, bees.accuracy) == (2, 0.75)


def test_equal_bytes_are_stored_once(hub: FolderHub, folder: Path, tmp_path: Path) -> None:
    push(hub, folder)
    push(hub, folder, "acme/again")

    blobs = [path for path in (tmp_path / "hub" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 3
