"""Pulls from a Hub, through the unmodified client, with whatever may go wrong on the way."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from huggingface_hub import constants

import gatehub
from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import (
    AdapterFormatError,
    GatehubError,
    HubAccessError,
    HubBusyError,
    HubError,
    HubFileNotFoundError,
    HubIntegrityError,
    HubUnreachableError,
    HubWarning,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from gatehub.hub import pull, pull_adapter, push
from gatehub.runtime.engine import Engine
from tests.hub.plain import REPO, contents
from tests.hub_server.faults import FOREVER, Fault
from tests.hub_server.serve import TestHub


@pytest.fixture
def commit(test_hub: TestHub, adapter_folder: Path) -> str:
    return push(adapter_folder, REPO, hub=test_hub.url, tag="v1").commit


@pytest.fixture
def told() -> list[str]:
    return []


def test_a_pull_brings_what_was_pushed(
    test_hub: TestHub, commit: str, adapter_folder: Path, tmp_path: Path
) -> None:
    for name in (REPO, f"{REPO}@v1", f"{REPO}@{commit}", f"{REPO}@{commit[:9]}"):
        assert contents(pull(name, hub=test_hub.url)) == contents(adapter_folder)
    out = pull(REPO, hub=test_hub.url, out=tmp_path / "place" / "out")
    assert contents(out) == contents(adapter_folder)
    assert os.listdir(out.parent) == ["out"]
    assert not (tmp_path / "hf").exists()  # nothing is kept twice, nothing unproven


def test_only_an_adapters_files_are_asked_for(
    test_hub: TestHub, commit: str, adapter_folder: Path, told: list[str]
) -> None:
    test_hub.state.put(REPO, {"pytorch_model.bin": b"cos\nsystem\n", "run.py": b"raise SystemExit"})
    test_hub.state.asked.clear()
    folder = pull(REPO, hub=test_hub.url, report=told.append)
    assert contents(folder) == contents(adapter_folder)
    assert told == [
        "acme/birds also holds 'pytorch_model.bin', a pickle, which can run code; it was not "
        "fetched."
    ]
    assert not any("pytorch" in path or "run.py" in path for _, path in test_hub.state.asked)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/cdn/", cut=1_000),
        Fault("/cdn/", drop=True),
        Fault("/cdn/", method="GET", status=503),
        Fault("/cdn/", flip=700),
        Fault("/cdn/", slow_s=0.05),
        Fault("/resolve/.*config.json", flip=40),
        Fault("/resolve/.*config.json", method="GET", status=500),
        Fault("/resolve/.*README.md", cut=10),
        Fault("/resolve/", method="HEAD", status=502),
        Fault("/resolve/", method="HEAD", drop=True),
        Fault("/revision/", status=500),
        Fault("/revision/", drop=True),
        Fault("/tree/", status=504),
        Fault("/tree/", cut=30),
    ],
    ids=lambda f: f"{f.path}-{f.method}-{f.status}-{f.cut}-{f.flip}-{f.drop}",
)
def test_one_fault_does_not_stop_a_pull(
    test_hub: TestHub, commit: str, adapter_folder: Path, tmp_path: Path, fault: Fault
) -> None:
    test_hub.faults.append(fault := replace(fault, hit=Event()))
    out = pull(REPO, hub=test_hub.url, out=tmp_path / "place" / "out")
    assert fault.hit.wait(5)
    assert contents(out) == contents(adapter_folder)
    assert os.listdir(out.parent) == ["out"]


def gate(hub: TestHub) -> None:
    hub.state.repositories[REPO].gated = True


def hide(hub: TestHub) -> None:
    hub.state.repositories[REPO].private = True
    os.environ.pop("HF_TOKEN")  # the fixture puts it back


def lose_file(hub: TestHub) -> None:
    # Listed, and gone when it is asked for.
    hub.faults.append(
        Fault("resolve", status=404, times=FOREVER, headers={"X-Error-Code": "EntryNotFound"})
    )


def always(**fault: object) -> Callable[[TestHub], None]:
    def plant(hub: TestHub) -> None:
        hub.faults.append(Fault(times=FOREVER, **fault))  # type: ignore[arg-type]

    return plant


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (gate, HubAccessError, "is gated, and you have no access to it. Ask for access at http"),
        (hide, RepositoryNotFoundError, "that may be seen without a token.*hf auth login"),
        (
            lambda hub: hub.state.users.clear(),
            HubAccessError,
            "does not know the token that was sent",
        ),
        (
            lambda hub: hub.state.repositories.clear(),
            RepositoryNotFoundError,
            f"no repository {REPO} on http.* that you may see",
        ),
        (lose_file, HubFileNotFoundError, "acme/birds has no config.json at"),
        (
            always(path="/api/", status=429, headers={"RateLimit": '"api";r=0;t=55'}),
            HubBusyError,
            "too many requests.*Wait 55 s",
        ),
        (always(path="/api/", status=503), HubUnreachableError, "answered 503.*not in the cache"),
        (always(path="", drop=True), HubUnreachableError, "cannot be reached .*not in the cache"),
        (always(path="/cdn/", method="GET", status=500), HubUnreachableError, "answered 500"),
        (always(path="/cdn/", cut=100), HubUnreachableError, "Fetching gates.safetensors"),
        (always(path="/cdn/", flip=700), HubIntegrityError, "came 4 times with other bytes"),
        (always(path="config.json", flip=7), HubIntegrityError, "came 4 times with other bytes"),
        (always(path="/tree/", cut=20), HubUnreachableError, "cannot be reached"),
        (always(path="/revision/", status=403), HubAccessError, "answered 403"),
        (always(path="/revision/", status=418), HubError, "answered 418"),
    ],
)
def test_what_cannot_be_helped_is_one_sentence(
    test_hub: TestHub,
    commit: str,
    tmp_path: Path,
    spoil: Callable[[TestHub], None],
    kind: type[HubError],
    text: str,
) -> None:
    (tmp_path / "place").mkdir()
    spoil(test_hub)
    with pytest.raises(kind, match=text) as caught:
        pull(REPO, hub=test_hub.url, out=tmp_path / "place" / "out")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert "hf_test" not in str(caught.value)
    assert os.listdir(tmp_path / "place") == []
    with pytest.raises(GatehubError):
        pull(REPO, hub=test_hub.url)


def test_a_revision_that_is_not_there(test_hub: TestHub, commit: str) -> None:
    for revision in ("v9", "0" * 40, "0000000"):
        with pytest.raises(
            RevisionNotFoundError, match=f"has no branch, tag or commit '{revision}"
        ):
            pull(f"{REPO}@{revision}", hub=test_hub.url)


def test_what_is_no_adapter_is_not_pulled(test_hub: TestHub, tmp_path: Path) -> None:
    test_hub.state.put(REPO, {"model.safetensors": b"x"})
    with (
        pytest.raises(AdapterFormatError, match="holds no adapter file"),
        pytest.warns(HubWarning),
    ):
        pull(REPO, hub=test_hub.url, out=tmp_path / "out")
    test_hub.state.put(REPO, {"config.json": b"{}", "gates.safetensors": b"x", "README.md": b""})
    for out in (tmp_path / "out", None):
        with (
            pytest.raises(AdapterFormatError, match=r"^acme/birds/config\.json lacks"),
            pytest.warns(HubWarning),
        ):
            pull(REPO, hub=test_hub.url, out=out)
    assert not (tmp_path / "out").exists()


def test_a_file_too_long_is_not_fetched(test_hub: TestHub, commit: str, tmp_path: Path) -> None:
    test_hub.state.put(REPO, {"README.md": b"x" * 1_000_001})
    test_hub.state.asked.clear()
    with pytest.raises(HubIntegrityError, match=r"README\.md of acme/birds has 1,000,001 bytes"):
        pull(REPO, hub=test_hub.url, out=tmp_path / "out")
    assert not any("/resolve/" in path for _, path in test_hub.state.asked)


def test_offline_with_a_warm_cache_says_that_it_may_be_stale(
    test_hub: TestHub,
    commit: str,
    adapter_folder: Path,
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = pull(f"{REPO}@v1", hub=test_hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    pulled = pull_adapter(f"{REPO}@v1", hub=test_hub.url, report=told.append)

    assert (pulled.folder, pulled.commit, pulled.stale) == (folder, commit, True)
    (sentence,) = told
    assert "HF_HUB_OFFLINE is set" in sentence
    assert f"from the cache (commit {commit[:12]}), which may be stale" in sentence
    # A whole commit id is never stale, and a copy may be made of what is cached.
    out = pull(f"{REPO}@{commit}", hub=test_hub.url, out=tmp_path / "out")
    assert contents(out) == contents(adapter_folder)
    with pytest.raises(HubUnreachableError, match=r"HF_HUB_OFFLINE.*is not in the cache either"):
        pull("acme/others", hub=test_hub.url)


def test_a_broken_hub_leaves_the_cache_and_says_so(
    test_hub: TestHub, commit: str, told: list[str]
) -> None:
    folder = pull(REPO, hub=test_hub.url)
    test_hub.faults.append(Fault("", status=503, times=FOREVER))
    assert pull(REPO, hub=test_hub.url, report=told.append) == folder
    assert "may be stale" in told[0]
    with pytest.warns(HubWarning, match="may be stale"):
        pull(REPO, hub=test_hub.url)


def test_a_refusal_is_not_answered_from_the_cache(test_hub: TestHub, commit: str) -> None:
    pull(REPO, hub=test_hub.url)
    test_hub.state.repositories.clear()
    with pytest.raises(RepositoryNotFoundError):
        pull(REPO, hub=test_hub.url)


def test_a_damaged_cache_is_noticed_and_mended(
    test_hub: TestHub,
    commit: str,
    adapter_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = pull(REPO, hub=test_hub.url)
    data = bytearray((folder / "README.md").read_bytes())
    data[-1] ^= 1
    (folder / "README.md").write_bytes(data)
    out = pull(REPO, hub=test_hub.url, out=tmp_path / "out")  # a copy of it would be damaged, too
    assert contents(out) == contents(adapter_folder)
    assert contents(pull(REPO, hub=test_hub.url)) == contents(adapter_folder)
    (folder / "README.md").write_bytes(data)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE"), pytest.warns(HubWarning):
        pull(REPO, hub=test_hub.url)


def test_two_hubs_share_no_cache(test_hub: TestHub, commit: str, tmp_path: Path) -> None:
    one = pull(REPO, hub=test_hub.url)
    push(one, REPO, hub=tmp_path / "hub")
    two = pull(REPO, hub=tmp_path / "hub")
    assert one.parents[2].name != two.parents[2].name


def test_a_moved_repository_is_followed_and_named(
    test_hub: TestHub, commit: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    test_hub.state.move(REPO, "acme/robins")
    pulled = pull_adapter(REPO, hub=test_hub.url, report=told.append)
    assert pulled.repo == "acme/robins"
    assert told == ["acme/birds is called acme/robins now."]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(REPO, hub=test_hub.url, report=told.append) == pulled.folder


def test_a_lock_file_pins_for_ever(
    test_hub: TestHub, commit: str, tiny_adapter: Adapter, adapter_folder: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "gatehub.lock"
    before = contents(adapter_folder)
    pull(REPO, hub=test_hub.url, lock=lock)
    pinned = lock.read_bytes()
    other = tiny_adapter.with_metrics({"accuracy": 0.1}).save(tmp_path / "other")
    newer = push(other, REPO, hub=test_hub.url).commit

    assert contents(pull(REPO, hub=test_hub.url, lock=lock, out=tmp_path / "a")) == before
    test_hub.state.move(REPO, "acme/robins")
    assert contents(pull(REPO, lock=lock, out=tmp_path / "b")) == before  # the lock names the hub
    assert lock.read_bytes() == pinned
    with pytest.raises(HubError, match="pins acme/birds to http"):
        pull(REPO, hub=tmp_path / "hub", lock=lock)
    with pytest.warns(HubWarning, match="is called acme/robins now"):
        updated = pull_adapter(REPO, hub=test_hub.url, lock=lock, update=True)
    assert updated.commit == newer
    assert contents(pull(REPO, lock=lock, out=tmp_path / "c")) == contents(other)


def test_a_hub_that_serves_other_bytes_than_pinned_is_found_out(
    test_hub: TestHub, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "gatehub.lock"
    pull(REPO, hub=test_hub.url, lock=lock)
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "another"))
    # The same commit id, a card that is as long, and a listing that agrees with it.
    repository = test_hub.state.repositories[REPO]
    old = repository.commits[commit]
    card = old.files["README.md"]
    forged = replace(card, data=card.data[:-2] + b"!\n")
    repository.commits[commit] = replace(old, files={**old.files, "README.md": forged})
    with pytest.raises(
        HubIntegrityError, match=r"has other files for commit .* the lock file pins"
    ):
        pull(REPO, lock=lock, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pinned_file_that_the_hub_no_longer_lists_is_found_out(
    test_hub: TestHub, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, cache = tmp_path / "gatehub.lock", tmp_path / "another"
    folder = pull(REPO, hub=test_hub.url, lock=lock)
    repository = test_hub.state.repositories[REPO]
    old = repository.commits[commit]
    fewer = {name: blob for name, blob in old.files.items() if name != "README.md"}
    repository.commits[commit] = replace(old, files=fewer)
    (folder / "README.md").unlink()
    with pytest.raises(HubIntegrityError, match=r"has other files .* than were pulled before"):
        pull(REPO, hub=test_hub.url)
    monkeypatch.setenv("GATEHUB_CACHE", str(cache))
    with pytest.raises(HubIntegrityError, match=r"has other files .* than the lock file pins"):
        pull(REPO, lock=lock)
    assert not list(cache.rglob("*.safetensors"))


def test_a_lock_file_that_pins_more_than_an_adapter_is_refused(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    hub, lock = tmp_path / "hub", tmp_path / "gatehub.lock"
    push(adapter_folder, REPO, hub=hub)
    pull(REPO, hub=hub, lock=lock)
    record = json.loads(lock.read_text())
    files = record["adapters"][REPO]["files"]
    files["training.png"] = files["README.md"]
    lock.write_text(json.dumps(record))
    with pytest.raises(HubIntegrityError, match=r"has other files .* than the lock file pins"):
        pull(REPO, lock=lock, out=tmp_path / "out")
    files["evil.pkl"] = files["README.md"]
    lock.write_text(json.dumps(record))
    with pytest.raises(HubError, match=r"pins 'evil\.pkl', which no adapter has"):
        pull(REPO, lock=lock, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 2}', '{"format": 1, "adapters": {"x": 1}}']
)
def test_a_file_that_is_no_lock_file(test_hub: TestHub, tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(HubError, match="is not a lock file of gatehub"):
        pull(REPO, hub=test_hub.url, lock=tmp_path / "lock")


def test_a_full_disk_and_a_cache_that_cannot_be_written(
    test_hub: TestHub, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(HubError, match=r"No space left on device.*Nothing half-written"):
            pull(REPO, hub=test_hub.url, out=tmp_path / "place" / "out")
    assert os.listdir(tmp_path / "place") == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(HubError, match=r"Pulling acme/birds failed: (Not a directory|File exists)"):
        pull(REPO, hub=test_hub.url)


def test_a_hub_name_loads_like_a_folder(
    test_hub: TestHub,
    commit: str,
    tiny_adapter: Adapter,
    tiny_backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", test_hub.url)
    assert gatehub.Adapter.load(f"{REPO}@v1").digest == tiny_adapter.digest
    engine = Engine(tiny_backbone)
    assert engine.load("birds", REPO).digest == tiny_adapter.digest
    with pytest.raises(
        RepositoryNotFoundError, match=r"'acme/bees' is not a folder here. There is no"
    ):
        engine.load("bees", "acme/bees")
    # What is here goes first, and a Path is never asked for elsewhere.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdapterFormatError, match="is not a folder"):
        gatehub.Adapter.load(Path(REPO))
    other = tiny_adapter.with_metrics({"accuracy": 0.25}).save(tmp_path / REPO)
    assert gatehub.Adapter.load(REPO).config.metrics == {"accuracy": 0.25}
    assert other.is_dir()


def test_where_a_backbone_lay_is_not_published(
    test_hub: TestHub, tiny_adapter: Adapter, tmp_path: Path, told: list[str]
) -> None:
    config = replace(
        tiny_adapter.config,
        backbone=replace(tiny_adapter.backbone, source="file:/home/ada/secret/r18.safetensors"),
        training={"data": "/mnt/ada's clinic/eyes", "epochs": 1},
    )
    folder = replace(tiny_adapter, config=config).save(tmp_path / "birds")
    (folder / "README.md").write_text(
        (folder / "README.md").read_text() + "\nTrained on /mnt/ada's clinic/eyes.\n"
    )

    first = push(folder, REPO, hub=test_hub.url, report=told.append)
    again = push(folder, REPO, hub=test_hub.url, report=told.append)
    push(folder, REPO, hub=tmp_path / "hub", report=told.append)

    assert not again.created
    assert first.commit == again.commit
    assert "Not published: '/home/ada/secret/r18.safetensors'" in told[0]
    for hub in (test_hub.url, tmp_path / "hub"):
        pulled = pull(REPO, hub=hub)
        for data in contents(pulled).values():
            assert b"secret" not in data
            assert b"clinic" not in data
        loaded = Adapter.load(pulled)
        assert loaded.backbone.source == "file:r18.safetensors"
        assert loaded.backbone.digest == tiny_adapter.backbone.digest
        assert loaded.config.training["data"] == "eyes"
    assert json.loads((folder / "config.json").read_text())["backbone"]["source"].startswith(
        "file:/home"
    )


def test_any_flipped_bit_of_any_file_is_caught(
    test_hub: TestHub, commit: str, adapter_folder: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    for trial in range(12):
        name, data = draw.choice(sorted(contents(adapter_folder).items()))
        place = "/cdn/" if name.endswith("safetensors") else f"resolve/.*{name}"
        test_hub.faults[:] = [Fault(place, method="GET", flip=draw.randrange(len(data)))]
        out = pull(REPO, hub=test_hub.url, out=tmp_path / f"out{trial}")
        assert test_hub.faults[0].hit.wait(5)
        assert contents(out) == contents(adapter_folder)


def test_a_stale_answer_makes_no_pin(adapter_folder: Path, tmp_path: Path) -> None:
    hub, lock = tmp_path / "hub", tmp_path / "lock.json"
    push(adapter_folder, REPO, hub=hub)
    pull(REPO, hub=hub)
    pull(REPO, hub=hub, lock=lock)
    before = lock.read_bytes()
    hub.rename(tmp_path / "unmounted")
    for place in (lock, tmp_path / "fresh.json"):
        with pytest.raises(HubUnreachableError, match="was not pinned") as refusal:
            pull(REPO, hub=hub, lock=place, update=True)
        assert "without the lock file" in refusal.value.hint
    assert lock.read_bytes() == before
    assert not (tmp_path / "fresh.json").exists()
    pull(REPO, hub=hub, lock=lock)  # the pin itself is as good as ever
