"""A folder hub on a disk, in memory and on S3: the same promises on each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import fsspec
import pytest

from gatehub.adapter import Adapter
from gatehub.errors import (
    HubConflictError,
    HubError,
    HubIntegrityError,
    HubTagError,
    HubUnreachableError,
)
from gatehub.hub import PushResult, list_adapters, list_revisions, open_hub, pull, push
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.folder.objects import Objects
from gatehub.hub.folder.upkeep import collect_garbage, verify_hub
from tests.hub import plain
from tests.hub.plain import REPO, contents, fetch, write_folder
from tests.hub.stores import BUCKET, KINDS, place, serve_s3


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch, serve_s3(monkeypatch):
        yield


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    return place(request.param, tmp_path)


def open_folder(where: str) -> FolderHub:
    hub = open_hub(where)
    assert isinstance(hub, FolderHub)
    return hub


def test_an_adapter_goes_there_and_back(
    where: str, adapter_folder: Path, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    first = push(adapter_folder, REPO, hub=where, tag="v1")
    again = push(adapter_folder, REPO, hub=where)
    other = tiny_adapter.with_metrics({}).save(tmp_path / "other")
    second = push(other, REPO, hub=where)

    assert (again.commit, again.created) == (first.commit, False)
    assert contents(pull(f"{REPO}@v1", hub=where)) == contents(adapter_folder)
    assert contents(pull(REPO, hub=where, out=tmp_path / "out")) == contents(other)
    assert [row.commit for row in list_revisions(REPO, where)] == [second.commit, first.commit]
    assert [row.repo for row in list_adapters(where)] == [REPO]
    with pytest.raises(HubTagError, match="The tag 'v1'"):
        push(other, REPO, hub=where, tag="v1")
    report = verify_hub(open_hub(where))
    assert (report.problems, report.repositories, report.commits) == ((), 1, 2)


def test_sixteen_pushes_at_once(where: str, tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / f"p{i}", i) for i in range(16)]
    barrier = Barrier(16)

    def push_together(folder: Path) -> PushResult | HubConflictError:
        hub = open_folder(where)  # each its own, as processes have
        barrier.wait()
        try:
            return plain.push(hub, folder, message=folder.name)
        except HubConflictError as error:
            return error

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(push_together, folders))

    hub = open_folder(where)
    rows = hub.list_revisions(REPO)
    landed = [o.commit for o in outcomes if isinstance(o, PushResult)]
    assert landed
    assert sorted(row.commit for row in rows) == sorted(landed)
    assert [row.parent for row in rows] == [*(row.commit for row in rows[1:]), None]
    for folder, outcome in zip(folders, outcomes, strict=True):
        if isinstance(outcome, PushResult):
            back = tmp_path / f"back-{folder.name}"
            assert fetch(hub, outcome.commit, back) == contents(folder)
        else:
            assert outcome.found in landed
    assert verify_hub(hub).problems == ()


def test_forced_pushes_all_land(where: str, tiny_adapter: Adapter, tmp_path: Path) -> None:
    folders = [
        tiny_adapter.with_metrics({"accuracy": i / 100}).save(tmp_path / f"p{i}") for i in range(6)
    ]
    with ThreadPoolExecutor(6) as threads:
        results = list(
            threads.map(lambda f: push(f, REPO, hub=where, message=f.name, force=True), folders)
        )
    assert all(result.created for result in results)
    rows = list_revisions(REPO, where)
    assert sorted(row.message for row in rows) == sorted(folder.name for folder in folders)


def damage(where: str, key: str, data: bytes | None) -> None:
    fs, root = fsspec.core.url_to_fs(where)
    if data is None:
        fs.rm_file(f"{root}/{key}")
    else:
        fs.pipe_file(f"{root}/{key}", data)


def test_damage_is_found_and_mended(where: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", 1)
    hub = open_folder(where)
    commit = plain.push(hub, folder).commit
    digest = plain.digests(folder)["gates.safetensors"].sha256
    key = f"blobs/{digest[:2]}/{digest}"

    damage(where, key, b"x" * 5_000)
    assert f"gates.safetensors of {REPO}" in verify_hub(hub).problems[0]
    assert "is damaged" in verify_hub(hub).problems[0]
    with pytest.raises(HubIntegrityError, match="does not hold the bytes that were pushed"):
        hub.fetch(REPO, commit, "gates.safetensors", tmp_path / "f")
    damage(where, key, None)
    assert "is missing" in verify_hub(hub).problems[0]
    assert not plain.push(hub, folder).created
    assert verify_hub(hub).problems == ()
    damage(where, f"repos/{REPO}/manifests/{commit}.json", b"{}")
    assert "does not hold the bytes written" in verify_hub(hub).problems[0]
    with pytest.raises(HubIntegrityError):
        collect_garbage(hub, older_than_s=0)


def test_garbage_is_collected_and_nothing_else(where: str, tmp_path: Path) -> None:
    hub = open_folder(where)
    kept, lost = write_folder(tmp_path / "kept", 1), write_folder(tmp_path / "lost", 2)
    commit = plain.push(hub, kept).commit
    for name, file in plain.digests(lost).items():  # a push that died before its manifest
        hub.storage.put(f"blobs/{file.sha256[:2]}/{file.sha256}", lost / name, file)
    assert collect_garbage(hub).blobs == 0  # it may be under way

    done = collect_garbage(hub, older_than_s=0)

    assert (done.blobs, done.manifests) == (2, 0)  # one of the three files is alike in both
    assert fetch(hub, commit, tmp_path / "back") == contents(kept)
    assert verify_hub(hub).problems == ()
    assert collect_garbage(hub, older_than_s=0).blobs == 0
    assert plain.push(hub, lost).created


def test_what_a_killed_push_left_beside_the_keys_is_collected(where: str, tmp_path: Path) -> None:
    hub, folder = open_folder(where), write_folder(tmp_path / "one", 1)
    plain.push(hub, folder)
    left = (
        ".gatehub-probe-0123456789abcdef"
        if isinstance(hub.storage, Objects)
        else "blobs/.gatehub-0123456789abcdef.tmp"
    )
    damage(where, left, b"1234")
    assert collect_garbage(hub).temporary == 0  # it may be at work
    done = collect_garbage(hub, older_than_s=0)
    assert (done.temporary, done.bytes) == (1, 4)
    assert collect_garbage(hub, older_than_s=0).temporary == 0
    assert verify_hub(hub).problems == ()


def test_uploads_in_parts_that_nobody_finishes_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This S3 says of each that it was begun in 2010.
    monkeypatch.setattr("gatehub.hub.folder.objects._seconds_since", lambda moment: 3600.0)
    hub = open_folder(place("s3", tmp_path))
    plain.push(hub, write_folder(tmp_path / "one", 1))
    assert isinstance(hub.storage, Objects)
    fs = hub.storage._fs

    def begin(key: str) -> None:
        fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)

    def under_way() -> list[str]:
        return [row["Key"] for row in fs.list_multipart_uploads(BUCKET)]

    ours = f"{hub.storage._root.partition('/')[2]}/blobs/ab/ab"
    for key in (ours, "another/hub/blobs/ab/ab"):
        begin(key)
    assert collect_garbage(hub).temporary == 0  # it may be at work
    assert collect_garbage(hub, older_than_s=0).temporary == 1
    assert under_way() == ["another/hub/blobs/ab/ab"]
    assert verify_hub(hub).problems == ()


def test_a_push_that_lands_during_a_collection_keeps_its_bytes(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, slow = open_folder(where), open_folder(where)
    plain.push(hub, write_folder(tmp_path / "first", 1))
    folder = write_folder(tmp_path / "second", 2)
    move, landed = hub.storage.move, []

    def move_late(key: str, to: str) -> None:
        if not landed:  # the collection has decided, and taken nothing yet
            landed.append(plain.push(slow, folder).commit)
        move(key, to)

    for name, file in plain.digests(folder).items():
        hub.storage.put(f"blobs/{file.sha256[:2]}/{file.sha256}", folder / name, file)
    monkeypatch.setattr(hub.storage, "move", move_late)
    collect_garbage(hub, older_than_s=0)
    assert landed
    assert verify_hub(hub).problems == ()
    assert fetch(hub, landed[0], tmp_path / "back") == contents(folder)


def test_a_push_mends_what_a_collection_took_from_it(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, other = open_folder(where), open_folder(where)
    plain.push(hub, write_folder(tmp_path / "first", 1))
    folder = write_folder(tmp_path / "second", 2)
    create = hub.storage.create

    def collect_before_it_lands(key: str, data: bytes) -> bool:
        if "/refs/heads/" in key:
            done = collect_garbage(other, older_than_s=0)
            assert (done.blobs, done.manifests) == (2, 1)
        return create(key, data)

    monkeypatch.setattr(hub.storage, "create", collect_before_it_lands)
    commit = plain.push(hub, folder).commit
    assert verify_hub(hub).problems == ()
    assert fetch(hub, commit, tmp_path / "back") == contents(folder)


def test_names_do_not_lead_out(where: str, tmp_path: Path) -> None:
    hub = open_folder(where)
    for key in ("../x", "a/../../x", "/etc/x", ".x"):
        with pytest.raises(HubIntegrityError, match="could lead out of the hub"):
            hub.storage.read(key, max_bytes=1)


def test_a_store_that_is_not_reached_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match=r"s3://nosuchbucket-x/hub"):
        plain.push(open_folder("s3://nosuchbucket-x/hub"), write_folder(tmp_path / "one", 1))
    with pytest.raises(HubError, match="There is no hub at s3://adapters/empty"):
        list_adapters(f"s3://{BUCKET}/empty")


def test_a_store_without_exclusive_creation_takes_no_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatehub.hub.folder.objects._creates_exclusively", lambda fs: False)
    with pytest.raises(HubError, match="cannot create an object only where there is none"):
        plain.push(open_folder(place("memory", tmp_path)), write_folder(tmp_path / "one", 1))
    monkeypatch.undo()
    # One that says it can, and does not.
    storage = Objects(place("memory", tmp_path))
    monkeypatch.setattr(
        storage, "_create", lambda path, data: storage._fs.pipe_file(path, data) or True
    )
    with pytest.raises(HubError, match="cannot create an object only where there is none"):
        storage.create("a", b"1")


def test_a_lost_answer_is_no_conflict(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = open_folder(where)
    if not isinstance(hub.storage, Objects):
        pytest.skip("a disk does not lose answers")
    create, lost = hub.storage._create, []

    def lose_answer(path: str, data: bytes) -> bool:
        made = create(path, data)
        if "/refs/heads/" in path and not lost:
            lost.append(made)
            return create(path, data)  # what a client does that did not hear
        return made

    monkeypatch.setattr(hub.storage, "_create", lose_answer)
    assert plain.push(hub, write_folder(tmp_path / "one", 1)).created
    assert lost == [True]


def test_an_outage_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = open_folder(place("s3", tmp_path))
    assert isinstance(hub.storage, Objects)
    first = plain.push(hub, write_folder(tmp_path / "one", 1)).commit

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("Please reduce your request rate (503)")

    with monkeypatch.context() as patched:
        patched.setattr(hub.storage._fs, "pipe_file", fail)
        with pytest.raises(HubUnreachableError, match="cannot be used: Please reduce your"):
            plain.push(hub, write_folder(tmp_path / "two", 2))
    assert hub.resolve(REPO, "main") == first
    assert plain.push(hub, tmp_path / "two").created
