"""Pushes to a Hub, through the unmodified client, with whatever may go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event

import huggingface_hub
import pytest

from gatehub.adapter import Adapter
from gatehub.errors import (
    GatehubError,
    HubAccessError,
    HubBusyError,
    HubConflictError,
    HubError,
    HubNameError,
    HubTagError,
    HubUnreachableError,
)
from gatehub.hub import PushResult, list_adapters, list_revisions, plan_push, pull, push, search
from tests.hub.plain import REPO, contents
from tests.hub_server.faults import FOREVER, Fault
from tests.hub_server.serve import TestHub
from tests.hub_server.state import TOKEN


@pytest.fixture
def folders(tiny_adapter: Adapter, tmp_path: Path) -> list[Path]:
    """Four adapters that differ, large files included."""
    dtypes = ("float16", "float32", "bfloat16", "float32")
    return [
        tiny_adapter.with_metrics({"accuracy": i / 10}).save(tmp_path / f"a{i}", dtype=dtypes[i])
        for i in range(4)
    ]


def head_files(hub: TestHub, branch: str = "main") -> dict[str, bytes]:
    commit = hub.state.repositories[REPO].resolve(branch)
    assert commit is not None
    return {name: b.data for name, b in commit.files.items() if not name.startswith(".")}


def titles(hub: TestHub, branch: str = "main") -> list[str]:
    return [commit.title for commit in hub.state.repositories[REPO].history(branch)]


def test_a_push_is_one_commit_with_its_tag(test_hub: TestHub, folders: list[Path]) -> None:
    result = push(folders[0], REPO, hub=test_hub.url, tag="v1", message="first")

    repository = test_hub.state.repositories[REPO]
    assert result.created
    assert result.commit == repository.branches["main"] == repository.tags["v1"]
    assert result.url == f"{test_hub.url}/{REPO}/tree/main"
    assert titles(test_hub) == ["first", "initial commit"]
    assert head_files(test_hub) == contents(folders[0])
    assert not repository.private
    assert repository.resolve("main").files["gates.safetensors"].is_large


def test_the_same_bytes_make_no_commit(test_hub: TestHub, folders: list[Path]) -> None:
    first = push(folders[0], REPO, hub=test_hub.url)
    again = push(folders[0], REPO, hub=test_hub.url, tag="v1")

    assert (again.commit, again.created) == (first.commit, False)
    assert len(titles(test_hub)) == 2
    assert test_hub.state.repositories[REPO].tags == {"v1": first.commit}


def test_other_files_of_the_repository_stay_and_dropped_ones_go(
    test_hub: TestHub, tiny_adapter: Adapter, folders: list[Path], tmp_path: Path
) -> None:
    log = tiny_adapter.save(tmp_path / "log", attachments={"training.jsonl": b"{}\n"})
    push(log, REPO, hub=test_hub.url)
    test_hub.state.put(REPO, {"notes.txt": b"mine"})

    push(folders[0], REPO, hub=test_hub.url)

    assert head_files(test_hub) == {**contents(folders[0]), "notes.txt": b"mine"}


def test_a_new_branch_and_a_private_repository(test_hub: TestHub, folders: list[Path]) -> None:
    push(folders[0], REPO, hub=test_hub.url, private=True)
    push(folders[1], REPO, hub=test_hub.url, revision="dev")

    repository = test_hub.state.repositories[REPO]
    assert repository.private
    assert head_files(test_hub) == contents(folders[0])
    assert head_files(test_hub, "dev") == contents(folders[1])
    assert len(list_revisions(REPO, test_hub.url)) == 3


def test_private_is_never_published(test_hub: TestHub, folders: list[Path]) -> None:
    test_hub.state.create(REPO)
    with pytest.raises(HubError, match=r"exists on .* and is public; nothing was pushed"):
        push(folders[0], REPO, hub=test_hub.url, private=True)
    assert titles(test_hub) == ["initial commit"]


def test_tags_stay_where_they_are(test_hub: TestHub, folders: list[Path]) -> None:
    first = push(folders[0], REPO, hub=test_hub.url, tag="v1").commit
    with pytest.raises(HubTagError, match=f"The tag 'v1' of {REPO} names {first}") as caught:
        push(folders[1], REPO, hub=test_hub.url, tag="v1")
    assert caught.value.found == first
    assert head_files(test_hub) == contents(folders[0])
    with pytest.raises(HubNameError, match="'v1' is a tag of acme/birds"):
        push(folders[1], REPO, hub=test_hub.url, revision="v1")
    with pytest.raises(HubNameError, match="'main' is a branch of acme/birds"):
        push(folders[1], REPO, hub=test_hub.url, tag="main")


def test_a_moved_repository_is_followed_and_named(test_hub: TestHub, folders: list[Path]) -> None:
    push(folders[0], REPO, hub=test_hub.url)
    test_hub.state.move(REPO, "acme/robins")
    told: list[str] = []
    result = push(folders[1], REPO, hub=test_hub.url, report=told.append)
    assert result.repo == "acme/robins"
    assert told == ["acme/birds is called acme/robins now."]


def test_a_plan_changes_nothing(test_hub: TestHub, folders: list[Path]) -> None:
    plan = plan_push(folders[0], REPO, hub=test_hub.url)
    assert plan.parent is None
    assert plan.added == ("README.md", "config.json", "gates.safetensors")
    assert test_hub.state.repositories == {}
    commit = push(folders[0], REPO, hub=test_hub.url).commit
    plan = plan_push(folders[1], REPO, hub=test_hub.url)
    assert plan.parent == commit
    assert plan.changed == ("README.md", "config.json", "gates.safetensors")
    assert plan_push(folders[0], REPO, hub=test_hub.url).bytes == 0
    assert test_hub.state.repositories[REPO].tags == {}
    assert titles(test_hub)[1:] == ["initial commit"]


def test_a_plan_refuses_the_tag_that_a_push_would(
    test_hub: TestHub, folders: list[Path], tmp_path: Path
) -> None:
    for hub in (test_hub.url, tmp_path / "hub"):
        first = push(folders[0], REPO, hub=hub, tag="v1").commit
        with pytest.raises(HubTagError, match="The tag 'v1'") as caught:
            plan_push(folders[1], REPO, hub=hub, tag="v1")
        assert (caught.value.expected, caught.value.found) == (None, first)
        with pytest.raises(HubNameError, match="'main' is a branch"):
            plan_push(folders[0], REPO, hub=hub, tag="main")
        push(folders[1], REPO, hub=hub, revision="dev")
        for do in (plan_push, push):
            with pytest.raises(HubNameError, match="'dev' is a branch"):
                do(folders[0], REPO, hub=hub, tag="dev")
            with pytest.raises(HubNameError, match="'v1' is a tag"):
                do(folders[0], REPO, hub=hub, revision="v1")
        # The beginning of a commit id is no tag, and no branch.
        assert plan_push(folders[1], REPO, hub=hub, tag=first[:6]).tag == first[:6]
        assert plan_push(folders[1], REPO, hub=hub, revision=first[:6]).parent is None
        assert plan_push(folders[0], REPO, hub=hub, tag="v1").tag == "v1"
        assert plan_push(folders[1], REPO, hub=hub, tag="v2").tag == "v2"
        assert plan_push(folders[1], "acme/new", hub=hub, tag="v1").tag == "v1"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/commit/", lose=True),
        Fault("/commit/", drop=True),
        Fault("/commit/", status=500),
        Fault("/commit/", status=503, times=2),
        Fault("/commit/", status=412),
        Fault("/commit/", status=409),
        Fault("/commit/", cut=10),
        Fault("/preupload/", status=502),
        Fault("/preupload/", drop=True),
        Fault("/lfs/", method="PUT", status=500),
        Fault("/lfs/", method="PUT", drop=True),
        Fault("/lfs/objects/batch", status=503),
        Fault("/refs", drop=True),
        Fault("/tag/", lose=True),
        Fault("/tag/", status=500),
    ],
    ids=lambda f: f"{f.path}-{f.status or [k for k in ('lose', 'drop', 'cut') if getattr(f, k)]}",
)
def test_one_fault_does_not_stop_a_push(
    test_hub: TestHub, folders: list[Path], fault: Fault
) -> None:
    push(folders[0], REPO, hub=test_hub.url)
    test_hub.faults.append(fault := replace(fault, hit=Event()))

    result = push(folders[1], REPO, hub=test_hub.url, tag="v1", message="mine")

    assert fault.hit.wait(5)
    assert result.created
    assert titles(test_hub) == ["mine", "Push birds", "initial commit"]
    assert head_files(test_hub) == contents(folders[1])
    assert test_hub.state.repositories[REPO].tags == {"v1": result.commit}


def test_a_lost_answer_and_a_lost_look_at_the_branch_are_still_success(
    test_hub: TestHub, folders: list[Path]
) -> None:
    push(folders[0], REPO, hub=test_hub.url)
    test_hub.faults += [Fault("/commit/", lose=True), Fault("/commits/", drop=True)]
    assert push(folders[1], REPO, hub=test_hub.url, message="mine").created
    assert titles(test_hub) == ["mine", "Push birds", "initial commit"]


def test_a_lost_answer_under_a_later_push_is_still_success(
    test_hub: TestHub, folders: list[Path]
) -> None:
    push(folders[0], REPO, hub=test_hub.url)
    later: list[PushResult] = []
    test_hub.faults += [
        Fault("/commit/", lose=True),
        Fault(
            "/commits/", meanwhile=lambda: later.append(push(folders[2], REPO, hub=test_hub.url))
        ),
    ]
    result = push(folders[1], REPO, hub=test_hub.url, message="mine")
    assert result.created
    history = test_hub.state.repositories[REPO].history("main")
    assert [commit.oid for commit in history][:2] == [later[0].commit, result.commit]


def test_a_push_that_is_overtaken_names_both_commits(
    test_hub: TestHub, folders: list[Path]
) -> None:
    first = push(folders[0], REPO, hub=test_hub.url).commit
    other: list[PushResult] = []
    overtake = Fault(
        "/commit/", meanwhile=lambda: other.append(push(folders[1], REPO, hub=test_hub.url))
    )
    test_hub.faults.append(overtake)
    with pytest.raises(HubConflictError, match="Nothing was overwritten") as caught:
        push(folders[2], REPO, hub=test_hub.url)
    assert (caught.value.expected, caught.value.found) == (first, other[0].commit)
    assert head_files(test_hub) == contents(folders[1])

    overtake.times = 1
    forced = push(folders[3], REPO, hub=test_hub.url, force=True)
    assert forced.created
    assert head_files(test_hub) == contents(folders[3])
    assert len(titles(test_hub)) == 4  # the overtaker had nothing new to push


def test_being_overtaken_by_the_same_content_is_success(
    test_hub: TestHub, folders: list[Path]
) -> None:
    push(folders[0], REPO, hub=test_hub.url)
    other: list[PushResult] = []
    test_hub.faults.append(
        Fault("/commit/", meanwhile=lambda: other.append(push(folders[1], REPO, hub=test_hub.url)))
    )
    result = push(folders[1], REPO, hub=test_hub.url)
    assert (result.commit, result.created) == (other[0].commit, False)


def test_sixteen_pushes_at_once(test_hub: TestHub, tiny_adapter: Adapter, tmp_path: Path) -> None:
    folders = [
        tiny_adapter.with_metrics({"accuracy": i / 100}).save(tmp_path / f"p{i}") for i in range(16)
    ]
    barrier = Barrier(16)

    def push_together(folder: Path) -> PushResult | HubConflictError:
        barrier.wait()
        try:
            return push(folder, REPO, hub=test_hub.url, message=folder.name)
        except HubConflictError as error:
            return error

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(push_together, folders))

    history = test_hub.state.repositories[REPO].history("main")
    landed = [o for o in outcomes if isinstance(o, PushResult)]
    assert landed
    assert {o.commit for o in landed} == {commit.oid for commit in history[:-1]}
    for folder, outcome in zip(folders, outcomes, strict=True):
        if isinstance(outcome, PushResult):
            commit = test_hub.state.repositories[REPO].commits[outcome.commit]
            assert commit.title == folder.name
            assert {n: b.data for n, b in commit.files.items() if n[0] != "."} == contents(folder)
        else:
            assert outcome.found in {commit.oid for commit in history}
            assert outcome.expected != outcome.found


def test_sixteen_forced_pushes_all_land(
    test_hub: TestHub, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    folders = [
        tiny_adapter.with_metrics({"accuracy": i / 100}).save(tmp_path / f"p{i}") for i in range(16)
    ]
    with ThreadPoolExecutor(16) as threads:
        results = list(
            threads.map(
                lambda f: push(f, REPO, hub=test_hub.url, message=f.name, force=True), folders
            )
        )
    assert all(result.created for result in results)
    assert sorted(titles(test_hub)[:-1]) == sorted(folder.name for folder in folders)


def no_token(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


def bad_token(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_somebodyelses0123456789")


def not_allowed(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.state.users[TOKEN] = ("ada", ())


def busy(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault("/api/", status=429, times=FOREVER, headers={"Retry-After": "17"}))


def broken(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault("/commit/", status=500, times=FOREVER))


def gone(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault("", drop=True, times=FOREVER))


def gone_in_between(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault("/commits?/", drop=True, times=FOREVER))


def refused_card(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault("/validate-yaml", status=400))


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (no_token, HubAccessError, "needs a token, and none was sent.*hf auth login"),
        (bad_token, HubAccessError, "does not know the token that was sent"),
        (not_allowed, HubAccessError, "not allowed with this token: .* answered 403"),
        (busy, HubBusyError, "too many requests. Wait 17 s"),
        (broken, HubUnreachableError, "answered 500"),
        (gone, HubUnreachableError, "cannot be reached"),
        (gone_in_between, HubUnreachableError, "Whether the push landed cannot be seen now"),
        (refused_card, HubError, "Pushing to acme/birds failed"),
    ],
)
def test_what_cannot_be_helped_is_one_sentence(
    test_hub: TestHub,
    folders: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[TestHub, pytest.MonkeyPatch], None],
    kind: type[HubError],
    text: str,
) -> None:
    spoil(test_hub, monkeypatch)
    with pytest.raises(kind, match=text) as caught:
        push(folders[0], REPO, hub=test_hub.url)
    assert "\n" not in str(caught.value)
    assert "hf_" not in str(caught.value).replace("hf_…", "")
    if REPO in test_hub.state.repositories:
        assert titles(test_hub) == ["initial commit"]


def test_xet_on_an_endpoint_without_it_is_a_sentence(
    test_hub: TestHub, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    pytest.importorskip("hf_xet")
    if huggingface_hub.__version__.startswith("1."):
        pytest.skip("it falls back by itself")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match="HF_HUB_DISABLE_XET=1") as caught:
        push(folders[0], REPO, hub=test_hub.url)
    assert "\n" not in str(caught.value)
    assert titles(test_hub) == ["initial commit"]


@pytest.mark.parametrize(
    ("card", "why"),
    [
        ("- gatehub", "its card has no block 'gatehub'"),
        # It collides with an argument of the client's own, which raises a TypeError.
        ("tags: [gatehub]\nignore_metadata_errors: true", "its card cannot be read"),
        ("tags: [gatehub]\ngatehub: 3", "its card has no block 'gatehub'"),
        (
            "tags: [gatehub]\ngatehub: {task: a}\nmodel-index: x",
            "its card's classes is not a count",
        ),
        ("tags: [gatehub]\ngatehub: {task: a, classes: true}", "its card's classes is not a count"),
        ('tags: [gatehub]\ngatehub: {task: "\\e[31m"}', "its card's task is not a printable text"),
    ],
)
def test_one_strange_card_does_not_hide_the_others(
    test_hub: TestHub, folders: list[Path], card: str, why: str
) -> None:
    push(folders[0], REPO, hub=test_hub.url)
    test_hub.state.put("bob/strange", {"README.md": f"---\n{card}\n---\n".encode()})
    told: list[str] = []
    assert [row.repo for row in search(hub=test_hub.url, report=told.append)] == [REPO]
    assert told == [f"'bob/strange' is left out: {why}."]
    with pytest.raises(GatehubError) as caught:
        pull("bob/strange", hub=test_hub.url)
    assert "\n" not in str(caught.value)


def test_search_finds_by_card(test_hub: TestHub, folders: list[Path], tmp_path: Path) -> None:
    push(folders[3], REPO, hub=test_hub.url)
    push(folders[1], "ada/other", hub=test_hub.url)
    test_hub.state.put("bob/foreign", {"README.md": b"---\ntags: [gatehub]\n---\n"})
    test_hub.state.put("bob/unrelated", {"README.md": b"---\ntags: [x]\n---\n"})
    told: list[str] = []

    rows = list_adapters(test_hub.url, report=told.append)

    assert [row.repo for row in rows] == [REPO, "ada/other"]
    assert (rows[0].task, rows[0].classes, rows[0].backbone) == ("birds", 3, "resnet18")
    assert (rows[0].accuracy, rows[0].gates) == (0.3, "auto")
    assert rows[0].bytes > 10_000
    assert told == ["'bob/foreign' is left out: its card has no block 'gatehub'."]

    def found(**query: str) -> list[str]:
        return [r.repo for r in search(hub=test_hub.url, report=told.append, **query)]

    assert found(author="ada") == ["ada/other"]
    assert found(task="BIRD") == [REPO, "ada/other"]
    assert found(task="cars") == []
    assert found(backbone="resnet18") == [REPO, "ada/other"]
    assert found(backbone="resnet50.a1_in1k") == []
    assert pull(REPO, hub=test_hub.url).is_dir()
