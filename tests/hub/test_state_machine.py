"""Push, pull, tag, delete and concurrent pushes in any order, against a model in a dictionary."""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gatehub.errors import (
    HubConflictError,
    HubTagError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from gatehub.hub import open_hub
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.folder.upkeep import (
    collect_garbage,
    delete_branch,
    delete_repository,
    delete_tag,
    verify_hub,
)
from gatehub.hub.protocol import PushResult
from tests.hub.plain import contents, fetch, push, write_folder
from tests.hub.stores import place

repos = st.sampled_from(["acme/birds", "acme/cars"])
branches = st.sampled_from(["main", "dev"])
tags = st.sampled_from(["v1", "v2"])
seeds = st.integers(0, 4)


class HubMachine(RuleBasedStateMachine):
    """A hub, and what it must hold: (repo, branch) to commits, newest last; (repo, tag) to one."""

    kind = "memory"

    @initialize()
    def make(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.tmp = Path(self._folder.name)
        self.where = place(self.kind, self.tmp)
        hub = open_hub(self.where)
        assert isinstance(hub, FolderHub)
        self.hub = hub
        self.folders = [write_folder(self.tmp / f"f{i}", i, size=64) for i in range(5)]
        push(self.hub, self.folders[0], "acme/first")  # it makes the hub
        self.branches: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self.tags: dict[tuple[str, str], tuple[str, int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def land(self, repo: str, branch: str, seed: int, result: PushResult) -> None:
        commits = self.branches.setdefault((repo, branch), [])
        known = bool(commits) and commits[-1][1] == seed
        assert result.created is not known
        if known:
            assert result.commit == commits[-1][0]
        else:
            commits.append((result.commit, seed))

    @rule(repo=repos, branch=branches, seed=seeds)
    def push(self, repo: str, branch: str, seed: int) -> None:
        self.land(repo, branch, seed, push(self.hub, self.folders[seed], repo, revision=branch))

    @rule(repo=repos, branch=branches, seed=seeds, tag=tags)
    def push_and_tag(self, repo: str, branch: str, seed: int, tag: str) -> None:
        commits = self.branches.get((repo, branch), [])
        head = commits[-1] if commits else None
        taken = self.tags.get((repo, tag))
        if taken is not None and (head != taken or taken[1] != seed):
            with pytest.raises(HubTagError) as caught:
                push(self.hub, self.folders[seed], repo, revision=branch, tag=tag)
            assert caught.value.found == taken[0]
            return
        result = push(self.hub, self.folders[seed], repo, revision=branch, tag=tag)
        self.land(repo, branch, seed, result)
        self.tags[repo, tag] = (result.commit, seed)

    @rule(repo=repos, branch=branches, pair=st.sets(seeds, min_size=2, max_size=3))
    def push_at_once(self, repo: str, branch: str, pair: set[int]) -> None:
        def one(seed: int) -> PushResult | HubConflictError:
            hub = open_hub(self.where)
            assert isinstance(hub, FolderHub)
            try:
                return push(hub, self.folders[seed], repo, revision=branch)
            except HubConflictError as error:
                return error

        order = sorted(pair)
        with ThreadPoolExecutor(len(order)) as threads:
            outcomes = dict(zip(order, threads.map(one, order), strict=True))
        commits = self.branches.setdefault((repo, branch), [])
        created = {
            outcome.commit: seed
            for seed, outcome in outcomes.items()
            if isinstance(outcome, PushResult) and outcome.created
        }
        before = [commit for commit, _ in commits]
        rows = (
            [row.commit for row in reversed(self.hub.list_revisions(repo))]
            if (created or before)
            else []
        )
        commits += [(commit, created[commit]) for commit in rows if commit in created]
        assert len(commits) == len(before) + len(created)  # none is lost
        seen = {commit for commit, _ in commits}
        for outcome in outcomes.values():
            if isinstance(outcome, HubConflictError):
                assert outcome.found in seen
            else:
                assert outcome.commit in seen

    @rule(repo=repos, tag=tags)
    def delete_tag(self, repo: str, tag: str) -> None:
        if (repo, tag) in self.tags and self.exists(repo):
            delete_tag(self.hub, repo, tag)
            del self.tags[repo, tag]
        else:
            with pytest.raises((RevisionNotFoundError, RepositoryNotFoundError)):
                delete_tag(self.hub, repo, tag)

    @rule(repo=repos, branch=branches)
    def delete_branch(self, repo: str, branch: str) -> None:
        if self.branches.get((repo, branch)):
            delete_branch(self.hub, repo, branch)
            self.branches[repo, branch] = []
        else:
            with pytest.raises((RevisionNotFoundError, RepositoryNotFoundError)):
                delete_branch(self.hub, repo, branch)

    @rule(repo=repos)
    def delete_repository(self, repo: str) -> None:
        if not self.exists(repo):
            with pytest.raises(RepositoryNotFoundError):
                delete_repository(self.hub, repo)
            return
        delete_repository(self.hub, repo)
        for key in list(self.branches):
            if key[0] == repo:
                self.branches[key] = []
        self.tags = {key: value for key, value in self.tags.items() if key[0] != repo}

    @rule()
    def collect(self) -> None:
        collect_garbage(self.hub, older_than_s=0)

    @rule(repo=repos, revision=st.one_of(branches, tags))
    def pull(self, repo: str, revision: str) -> None:
        expected = None
        if self.exists(repo):
            commits = self.branches.get((repo, revision))
            expected = commits[-1] if commits else self.tags.get((repo, revision))
        if expected is None:
            with pytest.raises((RevisionNotFoundError, RepositoryNotFoundError)):
                self.hub.resolve(repo, revision)
            return
        commit, seed = expected
        assert self.hub.resolve(repo, revision) == commit
        into = self.tmp / hashlib.sha256(f"{repo}{revision}".encode()).hexdigest()
        try:
            assert fetch(self.hub, commit, into, repo) == contents(self.folders[seed])
        finally:
            for path in into.iterdir():
                path.unlink()
            into.rmdir()

    def exists(self, repo: str) -> bool:
        return any(commits for (name, _), commits in self.branches.items() if name == repo)

    @invariant()
    def everything_is_there_and_sound(self) -> None:
        if not hasattr(self, "tags"):
            return
        assert verify_hub(self.hub).problems == ()
        for repo in ("acme/birds", "acme/cars"):
            if not self.exists(repo):
                continue
            rows = {row.commit: row for row in self.hub.list_revisions(repo)}
            for (name, branch), commits in self.branches.items():
                if name == repo and commits:
                    assert branch in rows[commits[-1][0]].branches
                    parents = [rows[commit].parent for commit, _ in commits]
                    assert parents == [None, *(commit for commit, _ in commits[:-1])]
            for (name, tag), (commit, _) in self.tags.items():
                if name == repo:
                    assert tag in rows[commit].tags


class DiskMachine(HubMachine):
    """The same on a disk."""

    kind = "disk"


_SETTINGS = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestMemoryHub = HubMachine.TestCase
TestMemoryHub.settings = _SETTINGS
TestDiskHub = DiskMachine.TestCase
TestDiskHub.settings = settings(_SETTINGS, max_examples=12)


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
