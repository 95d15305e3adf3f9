"""The test hub itself: the unmodified client and the `hf` command take it for a Hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sysconfig
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server.faults import FOREVER, Fault
from tests.hub_server.serve import TestHub
from tests.hub_server.state import TOKEN

REPO = "acme/birds"


@pytest.fixture(autouse=True)
def _endpoint(test_hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 1.x client parses answers by HF_ENDPOINT, whatever endpoint it was given."""
    template = f"{test_hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", test_hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def make_api(hub: TestHub, *, token: str | bool = TOKEN) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def commit(api: HfApi, *operations: CommitOperationAdd | CommitOperationDelete) -> str:
    return str(api.create_commit(REPO, operations, commit_message="a commit").oid)


def test_what_is_committed_is_downloaded(test_hub: TestHub, tmp_path: Path) -> None:
    api = make_api(test_hub)
    api.create_repo(REPO)
    large = os.urandom(300_000)
    oid = commit(api, add("w.safetensors", large), add("notes.txt", b"hello"))

    folder = Path(api.snapshot_download(REPO, revision=oid, cache_dir=tmp_path / "c"))

    assert (folder / "w.safetensors").read_bytes() == large
    assert (folder / "notes.txt").read_bytes() == b"hello"
    assert api.model_info(REPO).sha == oid
    entries = {entry.path: entry for entry in api.list_repo_tree(REPO)}
    assert entries["w.safetensors"].lfs.sha256 == hashlib.sha256(large).hexdigest()
    assert entries["notes.txt"].blob_id == hashlib.sha1(b"blob 5\0hello").hexdigest()
    assert [c.title for c in api.list_repo_commits(REPO)] == ["a commit", "initial commit"]
    commit(api, CommitOperationDelete("notes.txt"))
    assert not api.file_exists(REPO, "notes.txt")


def test_large_files_come_in_parts(test_hub: TestHub, tmp_path: Path) -> None:
    test_hub.state.multipart_bytes = 100_000
    api = make_api(test_hub)
    api.create_repo(REPO)
    data = os.urandom(250_001)
    commit(api, add("w.safetensors", data))
    assert test_hub.state.large[hashlib.sha256(data).hexdigest()] == data
    assert ("PUT", f"/lfs/{hashlib.sha256(data).hexdigest()}/3") in test_hub.state.asked


def test_refs_moves_and_listings(test_hub: TestHub) -> None:
    api = make_api(test_hub)
    api.create_repo(REPO)
    card = b"---\ntags: [gatehub]\nbase_model: timm/r18\nbase_model_relation: adapter\n---\n"
    oid = commit(api, add("README.md", card))
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="dev")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag(REPO, tag="v1")
    assert caught.value.response.status_code == 409
    refs = api.list_repo_refs(REPO)
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", oid)]
    assert {branch.name for branch in refs.branches} == {"main", "dev"}

    for i in range(3):
        test_hub.state.create(f"other/{i}")
    assert [m.id for m in api.list_models(filter=["gatehub", "base_model:adapter:timm/r18"])] == [
        REPO
    ]
    assert len(list(api.list_models(limit=10))) == 4
    api.move_repo(REPO, "acme/robins")
    assert api.model_info(REPO).id == "acme/robins"
    api.delete_repo("acme/robins")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/robins")


def test_a_stale_parent_is_refused(test_hub: TestHub) -> None:
    api = make_api(test_hub)
    api.create_repo(REPO)
    first = str(api.model_info(REPO).sha)
    commit(api, add("a", b"1"))
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, [add("a", b"2")], commit_message="x", parent_commit=first)
    assert caught.value.response.status_code == 412


def test_refusals_have_the_clients_own_classes(test_hub: TestHub, tmp_path: Path) -> None:
    api, stranger = make_api(test_hub), make_api(test_hub, token=False)
    api.create_repo(REPO, private=True)
    test_hub.state.put("acme/gated", {"f": b""})
    test_hub.state.repositories["acme/gated"].gated = True
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info(REPO)
    with pytest.raises(HfHubHTTPError, match="401") as caught:
        make_api(test_hub, token="hf_wrong").model_info(REPO)
    assert type(caught.value) is HfHubHTTPError
    with pytest.raises(GatedRepoError):
        api.hf_hub_download("acme/gated", "f", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(REPO, "missing", cache_dir=tmp_path)


@pytest.mark.skipif(huggingface_hub.__version__ < "1.1", reason="it resumes after timeouts only")
@pytest.mark.parametrize(
    "fault",
    [
        {"drop": True},
        {"cut": 70_000},
        {"slow_s": 0.01},
    ],
)
def test_the_client_outlives_one_fault(
    test_hub: TestHub, tmp_path: Path, fault: dict[str, object]
) -> None:
    api = make_api(test_hub)
    data = os.urandom(200_000)
    test_hub.state.put(REPO, {"w.safetensors": data})
    test_hub.faults.append(planted := Fault("/cdn/", method="GET", **fault))  # type: ignore[arg-type]
    path = api.hf_hub_download(REPO, "w.safetensors", cache_dir=tmp_path)
    assert planted.hit.wait(5)
    assert Path(path).read_bytes() == data


def test_a_flipped_bit_passes_the_client(test_hub: TestHub, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    test_hub.state.put(REPO, {"w.safetensors": data})
    test_hub.faults.append(Fault("/cdn/", method="GET", flip=99_000))
    path = make_api(test_hub).hf_hub_download(REPO, "w.safetensors", cache_dir=tmp_path)
    found = Path(path).read_bytes()
    assert [i for i in range(len(data)) if data[i] != found[i]] == [99_000]


def test_a_lost_answer_leaves_the_commit(test_hub: TestHub) -> None:
    api = make_api(test_hub)
    api.create_repo(REPO)
    test_hub.faults.append(Fault("/commit/", lose=True, times=FOREVER))
    with pytest.raises(Exception, match="disconnected"):
        commit(api, add("a", b"1"))
    assert set(test_hub.state.repositories[REPO].resolve("main").files) == {"a", ".gitattributes"}


def test_the_hf_command(test_hub: TestHub, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "w.safetensors").write_bytes(b"x" * 1000)
    settings = {"HF_ENDPOINT": test_hub.url, "HF_HUB_DISABLE_XET": "1", "NO_COLOR": "1"}
    hf = Path(sysconfig.get_path("scripts"), "hf")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [hf, *arguments], env={**os.environ, **settings}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "ada" in run("auth", "whoami")
    run("upload", REPO, str(tmp_path / "folder"), ".")
    run("download", REPO, "w.safetensors", "--local-dir", str(tmp_path / "back"))
    assert (tmp_path / "back" / "w.safetensors").read_bytes() == b"x" * 1000
