"""An adapter from a folder here to a hub: push, and the plan of a push."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gatehub._arguments import checked
from gatehub._retries import retry
from gatehub._text import quote
from gatehub.errors import (
    AdapterFormatError,
    HubConflictError,
    HubError,
    HubTagError,
    RepositoryNotFoundError,
)
from gatehub.hub.files import (
    KnownFile,
    StoredFile,
    changed_meanwhile,
    digest_file,
    is_same,
    select_files,
)
from gatehub.hub.names import (
    DEFAULT_BRANCH,
    check_branch,
    check_ref,
    check_repository,
    check_tag,
)
from gatehub.hub.opening import open_hub
from gatehub.hub.protocol import AdapterSummary, Hub, PushResult, Refs
from gatehub.hub.reports import Report, told, warn
from gatehub.hub.snapshot import copied

if TYPE_CHECKING:
    from gatehub.adapter.config import AdapterConfig

_FORCED_ATTEMPTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What a push would do.

    Attributes:
        repo: `org/name`.
        revision: the branch.
        tag: the tag that the commit would get, if any.
        place: the hub.
        parent: the branch's head now, None if the push would make the branch or the repository.
        added: files that the head lacks.
        changed: files that it holds with other bytes.
        removed: files that it holds and the folder does not.
        unchanged: files that are the same.
        bytes: size of what would be added or changed.
    """

    repo: str
    revision: str
    tag: str | None
    place: str
    parent: str | None
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    bytes: int


@checked(HubError)
def push(
    folder: str | Path,
    repo: str,
    *,
    hub: str | Path | None = None,
    revision: str = DEFAULT_BRANCH,
    tag: str | None = None,
    message: str | None = None,
    private: bool = False,
    force: bool = False,
    report: Report | None = None,
) -> PushResult:
    """Put an adapter folder on a hub, as one commit on top of a branch's head.

    The head is read first. If another push lands after that, this one is refused unless the
    content is the same; nothing is overwritten, so pushing again puts it on top. What the
    head holds already makes no new commit, so a push that was cut off is simply repeated.
    Paths of this machine in the config and the card are cut to their last name.

    Args:
        folder: an adapter folder, without links; a private copy of its files is verified and sent.
        repo: `org/name`; a Hub makes it if it is not there.
        hub: see `open_hub`.
        revision: the branch, which need not exist yet.
        tag: a name for this content that will never move.
        message: what the history says of it.
        private: make a new repository private; on a Hub only.
        force: if others push meanwhile, put the commit on top of theirs.
        report: told, in sentences, what the caller should know; None issues `HubWarning`.

    Raises:
        AdapterFormatError: the folder is not a sound adapter.
        HubNameError: a name that is not valid.
        HubConflictError: another push landed first.
        HubTagError: the tag names another commit.
        HubAccessError: the hub does not allow it.
        HubUnreachableError: the hub does not answer.
        HubError: the hub cannot be used.
    """
    store = open_hub(hub)
    check_repository(repo)
    report = report or warn
    with told(f"Pushing to {repo}"), _ready(folder, report) as (ready, files, config):
        land = partial(
            store.push,
            ready,
            files,
            repo,
            revision=revision,
            tag=tag,
            message=message or f"Push {config.task}",
            summary=_summarise(config),
            private=private,
        )
        result = retry(land, attempts=_FORCED_ATTEMPTS if force else 1, wait=_wait_for_others)
        if result.repo != repo:
            report(f"{repo} is called {result.repo} now.")
        return result


@checked(HubError)
def plan_push(
    folder: str | Path,
    repo: str,
    *,
    hub: str | Path | None = None,
    revision: str = DEFAULT_BRANCH,
    tag: str | None = None,
    report: Report | None = None,
) -> PushPlan:
    """Say what `push` would do, and change nothing; arguments and errors are those of `push`."""
    store = open_hub(hub)
    check_repository(repo)
    check_ref(revision)
    with told(f"Planning a push to {repo}"), _ready(folder, report or warn) as (ready, files, _):
        refs, parent, there = _look(store, repo, revision)
        check_branch(repo, revision, tagged=refs.tags.get(revision))
        same = {
            name
            for name, known in there.items()
            if name in files and is_same(ready / name, known, files[name])
        }
        added = tuple(sorted(files.keys() - there.keys()))
        changed = tuple(sorted((files.keys() & there.keys()) - same))
        if tag is not None:
            check_tag(
                repo,
                tag,
                branches={revision, *refs.branches},
                taken=store.resolve(repo, tag) if tag in refs.tags else None,
                commit=parent if same == files.keys() == there.keys() else None,
            )
        return PushPlan(
            repo=store.present_name(repo),
            revision=revision,
            tag=tag,
            place=store.place,
            parent=parent,
            added=added,
            changed=changed,
            removed=tuple(sorted(there.keys() - files.keys())),
            unchanged=tuple(sorted(same)),
            bytes=sum(files[name].bytes for name in (*added, *changed)),
        )


def _wait_for_others(error: Exception, failed: int) -> float | None:
    """Seconds until a forced push goes on top of one that landed first."""
    if isinstance(error, HubTagError) or not isinstance(error, HubConflictError):
        return None
    return random.uniform(0, 0.05 * (failed + 1))


@contextmanager
def _ready(
    folder: str | Path, report: Report
) -> Iterator[tuple[Path, dict[str, StoredFile], AdapterConfig]]:
    """A copy as it is to be pushed, the digests of its files, and its config, all verified."""
    # Loads torch, which nothing else in this package needs.
    from gatehub.adapter.files import verify_adapter
    from gatehub.adapter.folder import list_files
    from gatehub.adapter.privacy import hide_paths

    folder = Path(folder)
    list_files(folder)  # names what stays here, too
    with copied(folder) as (copy, files):
        try:
            config = verify_adapter(copy, proven=_sums(files))
        except AdapterFormatError:
            verify_adapter(folder)  # says the same, and by the folder's own name
            raise changed_meanwhile(folder) from None
        config, changed, cut = hide_paths(copy, config)
        if cut:
            files |= {name: digest_file(copy / name) for name in changed}
            verify_adapter(copy, proven=_sums(files))
            listed = " and ".join(quote(path) for path in cut[:5])
            more = f" and {len(cut) - 5} more" if len(cut) > 5 else ""
            report(
                f"Not published: {listed}{more}; of what could be a path of this machine, the last "
                "name only. The backbone's digest goes along."
            )
        yield copy, files, config


def _sums(files: Mapping[str, StoredFile]) -> dict[str, str]:
    return {name: file.sha256 for name, file in files.items()}


def _look(store: Hub, repo: str, revision: str) -> tuple[Refs, str | None, Mapping[str, KnownFile]]:
    """What is there: the repository's names, the branch's head, and an adapter's files in it."""
    try:
        refs = store.refs(repo)
    except RepositoryNotFoundError:
        return Refs(branches={}, tags={}), None, {}
    if revision not in refs.branches:
        return refs, None, {}
    commit = store.resolve(repo, revision)
    repo = store.present_name(repo)
    return refs, commit, select_files(repo, store.files(repo, commit))[0]


def _summarise(config: AdapterConfig) -> AdapterSummary:
    from gatehub.adapter.card import name_backbone

    accuracy = config.metrics.get("accuracy")
    return AdapterSummary(
        task=config.task,
        classes=len(config.labels),
        backbone=name_backbone(config),
        gates=config.layout.policy,
        accuracy=None if accuracy is None else float(accuracy),
    )
