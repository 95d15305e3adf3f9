"""What is not ours is neither deleted, sent nor believed: hubs, tokens, links, the cache."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from gatehub._huggingface.tokens import advise_login, keeps_secrets
from gatehub.backbone._download import fetch_file
from gatehub.errors import (
    AdapterFormatError,
    BackboneNotFoundError,
    HubAbsentError,
    HubError,
    HubUnreachableError,
    HubWarning,
    RepositoryNotFoundError,
)
from gatehub.hub import open_hub, pull, push
from gatehub.hub.cache import Cache
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.folder.upkeep import collect_garbage, delete_repository, verify_hub
from gatehub.hub.pushing import plan_push
from tests.hub import plain
from tests.hub.plain import REPO, write_folder
from tests.hub_server.serve import TestHub

DIGEST = "ab" * 32
# Names that a hub could have made, but for one thing each.
FOREIGN = (
    "thesis.txt",
    "blobs/ab/notes.txt",
    f"blobs/cd/{DIGEST}",
    f"blobs/ab/{DIGEST.upper()}",
    f"blobs/{DIGEST}",
    "trash/photos/holiday.jpg",
    "trash/blobs/ab/notes.txt",
    "repos/acme/birds/manifests/notes",
    ".0123456789abcdef.tmp",
    "blobs/.old.tmp",
    "repos/.gatehub-notes/list",
)


def lay(root: Path) -> Mapping[Path, bytes]:
    for name in FOREIGN:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    return read(root)


def read(root: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("names", [FOREIGN, ("repos/acme/birds/README.md",), ()])
@pytest.mark.parametrize("work", [collect_garbage, verify_hub])
def test_a_folder_that_is_no_hub_is_refused(
    work: Any, names: tuple[str, ...], tmp_path: Path
) -> None:
    root = tmp_path / "home"
    root.mkdir()
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    before = read(root)
    with pytest.raises(HubError, match="is not a hub: nothing in it was pushed"):
        work(open_hub(root))
    assert read(root) == before


def test_a_collection_leaves_what_no_push_has_made(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    plain.push(hub, write_folder(tmp_path / "one", 1))
    plain.push(hub, write_folder(tmp_path / "two", 2), "acme/bees")
    mine = lay(tmp_path / "hub")
    foreign = {path for path, data in mine.items() if data == b"mine"}
    assert len(foreign) == len(FOREIGN)
    delete_repository(hub, "acme/bees")
    done = collect_garbage(hub, older_than_s=0)
    assert (done.blobs, done.manifests) == (2, 1)
    left = read(tmp_path / "hub").items()
    assert {path for path, data in left if data == b"mine"} == foreign
    assert verify_hub(hub).problems == ()
    delete_repository(hub, REPO)
    collect_garbage(hub, older_than_s=0)
    verify_hub(hub)  # a hub that has been emptied is one still


def test_what_is_pushed_again_is_young_again(tmp_path: Path) -> None:
    """A collection that began before a push landed must not take its bytes for old garbage."""
    hub, folder = FolderHub(tmp_path / "hub"), write_folder(tmp_path / "one", 1)
    plain.push(hub, folder)
    delete_repository(hub, REPO)
    for path in (tmp_path / "hub" / "blobs").rglob("*"):
        os.utime(path, (0, 0))
    files = plain.digests(folder)
    for name, file in files.items():
        hub.storage.put(f"blobs/{file.sha256[:2]}/{file.sha256}", folder / name, file)
    assert collect_garbage(hub, older_than_s=3600).blobs == 0


@pytest.mark.parametrize(
    ("endpoint", "keeps"),
    [
        ("https://huggingface.co", True),
        ("HTTPS://hub.acme.example:8443/x", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost", True),
        ("http://[::1]:80", True),
        ("http://hub.acme.example", False),
        ("http://localhost.acme.example", False),
        ("http://127.0.0.1.acme.example", False),
        ("http://192.168.1.1", False),
        ("http://0.0.0.0", False),
        ("http://[broken", False),
    ],
)
def test_who_can_read_along(endpoint: str, keeps: bool) -> None:
    assert keeps_secrets(endpoint) is keeps


@pytest.mark.parametrize(
    ("endpoint", "trusted", "sent"),
    [
        ("https://hub.acme.example", True, True),
        ("https://hub.acme.example", False, False),
        ("http://hub.acme.example", True, False),
        ("http://127.0.0.1:1", True, True),
        ("http://127.0.0.1:1", False, False),
    ],
)
def test_a_token_goes_to_whom_the_user_named(
    endpoint: str, trusted: bool, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    api: HfApi = open_hub(endpoint, trusted=trusted).api  # type: ignore[attr-defined]
    headers = api._build_hf_headers()
    assert ("authorization" in headers) is sent


def test_a_backbone_is_fetched_without_the_token_over_plain_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(*_: object, token: object, **__: object) -> None:
        sent.append(token)
        raise OSError("far enough")

    for asked in ("get_hf_file_metadata", "hf_hub_download"):
        monkeypatch.setattr(f"gatehub.backbone._download.{asked}", ask)
    for endpoint, token in (("https://hub.acme.example", None), ("http://hub.acme.example", False)):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        for revision in (None, "0" * 40):  # asked first, and fetched at once
            sent: list[object] = []
            with pytest.raises(BackboneNotFoundError, match="far enough"):
                fetch_file("acme/net", "model.safetensors", revision)
            assert sent == [token]


def test_a_refusal_says_that_no_token_was_sent() -> None:
    assert "hf auth login" in advise_login("https://hub.acme.example")
    assert "Use the https:// address" in advise_login("http://hub.acme.example")


def test_a_lock_file_cannot_send_the_token_elsewhere(
    test_hub: TestHub, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "gatehub.lock"
    monkeypatch.setenv("HF_ENDPOINT", test_hub.url)
    push(adapter_folder, REPO)
    pull(REPO, lock=lock, out=tmp_path / "first")
    asked: list[object] = []
    init = HfApi.__init__

    def watch(api: HfApi, *args: object, **choices: object) -> None:
        asked.append((choices["endpoint"], choices.get("token")))
        init(api, *args, **choices)  # type: ignore[arg-type]

    monkeypatch.setattr(HfApi, "__init__", watch)
    pull(REPO, lock=lock, out=tmp_path / "second")
    assert (test_hub.url, None) in asked  # the environment's own

    lock.write_text(lock.read_text().replace(test_hub.url, "https://evil.example"))

    def stop(*_: object) -> None:
        raise OSError("far enough")

    monkeypatch.setattr("gatehub.hub.pulling._Pull.run", stop)
    with pytest.raises(HubError, match="far enough"):
        pull(REPO, lock=lock, out=tmp_path / "third")
    assert ("https://evil.example", False) in asked


@pytest.mark.parametrize(
    "name", ["README.md", "config.json", "gates.safetensors", "training.jsonl"]
)
def test_a_push_follows_no_link(name: str, adapter_folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    if (adapter_folder / name).exists():
        shutil.move(adapter_folder / name, secret)
    else:
        secret.write_text("private")
    (adapter_folder / name).symlink_to(secret)
    for send in (push, plan_push):
        with pytest.raises(AdapterFormatError, match=f"{name}' is not a regular file"):
            send(adapter_folder, REPO, hub=tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_each_hub_has_a_place_of_its_own_in_the_cache() -> None:
    places = [
        "https://h/team",
        "https://h-team",
        "http://h/team",
        "https://h:80/team",
        "https://h/Team",
    ]
    keys = {open_hub(place).key for place in places}
    assert len(keys) == len(places)
    assert all(key.startswith("h") for key in keys)


def test_a_pinned_pull_says_nothing_of_where_a_branch_is(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    hub, lock = tmp_path / "hub", tmp_path / "gatehub.lock"
    push(adapter_folder, REPO, hub=hub)
    pull(REPO, hub=hub, lock=lock)
    readme = adapter_folder / "README.md"
    readme.write_text(readme.read_text() + "\nEdited.\n")
    newest = push(adapter_folder, REPO, hub=hub).commit
    pull(REPO, hub=hub)
    pull(REPO, lock=lock)  # the old one
    assert Cache(open_hub(hub).key).seen(REPO, "main") == newest


@pytest.fixture
def pulled(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A folder hub, and the folder in the cache to which its tag v1 was pulled."""
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    push(adapter_folder, REPO, hub=tmp_path / "hub", tag="v1")
    return tmp_path / "hub", pull(f"{REPO}@v1", hub=tmp_path / "hub")


@pytest.mark.parametrize("gone", ["unmounted", "empty mount point"])
def test_the_cache_serves_while_a_folder_hub_is_away(
    gone: str, pulled: tuple[Path, Path], adapter_folder: Path, tmp_path: Path
) -> None:
    hub, before = pulled
    hub.rename(tmp_path / "elsewhere")
    if gone == "empty mount point":
        hub.mkdir()
    with pytest.warns(HubWarning, match=r"There is no hub at .* from the cache .* may be stale"):
        assert pull(f"{REPO}@v1", hub=hub) == before
    for kind in (HubAbsentError, HubUnreachableError, RepositoryNotFoundError):
        with pytest.raises(kind, match="not in the cache either"):
            pull("acme/bees", hub=hub)
    push(adapter_folder, REPO, hub=hub)  # a first push makes a hub


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN]
)
def test_the_cache_serves_while_a_drive_does_not_answer(
    number: int, pulled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, before = pulled

    def fail(*_: object) -> bool:
        raise OSError(number, os.strerror(number), str(hub))

    monkeypatch.setattr("gatehub.hub.folder.disk.Disk.exists", fail)
    with pytest.warns(HubWarning, match=r"cannot be read: .* from the cache .* may be stale"):
        assert pull(f"{REPO}@v1", hub=hub) == before
    with pytest.raises(HubUnreachableError, match="not in the cache either"):
        pull("acme/bees", hub=hub)


def test_a_drive_that_allows_nothing_is_not_taken_for_one_that_is_away(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(adapter_folder, REPO, hub=tmp_path / "hub")

    def fail(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("gatehub.hub.folder.disk.Disk.exists", fail)
    with pytest.raises(HubError, match="Permission denied") as refused:
        pull(REPO, hub=tmp_path / "hub")
    assert not isinstance(refused.value, HubUnreachableError)


def test_what_a_user_put_into_the_cache_is_kept(
    pulled: tuple[Path, Path], adapter_folder: Path, tmp_path: Path
) -> None:
    _, folder = pulled
    (folder / "NOTES.md").write_text("mine")
    (folder / ".git").mkdir()
    with pytest.warns(HubWarning, match=r"\.git, NOTES\.md.*; they are in .*\.kept-"):
        assert pull(REPO, hub=tmp_path / "hub") == folder
    (kept,) = folder.parent.glob("*.kept-*")
    assert (kept / "NOTES.md").read_text() == "mine"
    assert (kept / ".git").is_dir()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in adapter_folder.iterdir()
    )
    (folder / "README.md").write_text("damaged")
    assert pull(REPO, hub=tmp_path / "hub") == folder
    assert len([*folder.parent.glob("*.kept-*")]) == 1


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini"])
def test_leftovers_of_a_desktop_are_no_tags(
    name: str, adapter_folder: Path, tmp_path: Path
) -> None:
    hub = FolderHub(tmp_path / "hub")
    push(adapter_folder, REPO, hub=tmp_path / "hub", tag="v1")
    for folder in ("tags", "heads", "heads/main"):
        (tmp_path / "hub" / "repos" / REPO / "refs" / folder / name).write_bytes(b"\0")
    assert verify_hub(hub).problems == ()
    collect_garbage(hub)
    (row,) = hub.list_revisions(REPO)
    assert row.tags == ("v1",)
