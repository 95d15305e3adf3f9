"""A hub in a folder, on a disk or a network drive, or in an object store. It loses nothing.

    blobs/3f/3f9a…                                  files' bytes, named by their SHA-256
    repos/ORG/NAME/manifests/COMMIT.json            what a commit holds, named by its SHA-256
    repos/ORG/NAME/refs/heads/BRANCH/00000001       the commits of a branch in order; the
                                                    highest number is its head
    repos/ORG/NAME/refs/tags/TAG                    the commit of a tag

A push writes the blobs, then the manifest, then creates the next number of its branch. Only
that last step makes it visible, and of many pushes at once exactly one gets the number. There
is no lock that a crash could leave behind; what a crash leaves are blobs, manifests and
temporary files that no number leads to, which `gatehub.hub.folder.upkeep` collects. A branch is
deleted by a number that says so. Nothing else is ever changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from gatehub.errors import (
    HubAbsentError,
    HubError,
    HubIntegrityError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from gatehub.hub.files import StoredFile
from gatehub.hub.folder.disk import Disk
from gatehub.hub.folder.manifest import Manifest, now
from gatehub.hub.folder.repository import Repository
from gatehub.hub.folder.storage import Storage
from gatehub.hub.names import (
    check_branch,
    check_ref,
    check_revision,
    check_tag,
    complete_commit,
    is_commit_prefix,
    is_ref,
    landed_first,
    tag_is_taken,
)
from gatehub.hub.protocol import (
    AdapterSummary,
    ListedAdapter,
    ListedRevision,
    PushResult,
    Query,
    Refs,
)
from gatehub.hub.reports import Report


class FolderHub:
    """The hub in one folder, which the first push makes.

    Args:
        root: the folder, or a storage that is not one.
    """

    def __init__(self, root: Path | Storage) -> None:
        self._disk: Storage = Disk(root) if isinstance(root, Path) else root

    def __repr__(self) -> str:
        return f"FolderHub({self.place!r})"

    @property
    def storage(self) -> Storage:
        """Where the bytes lie."""
        return self._disk

    @property
    def key(self) -> str:
        """See `Hub.key`."""
        return f"folder-{hashlib.sha256(self.place.encode()).hexdigest()[:16]}"

    @property
    def place(self) -> str:
        """See `Hub.place`."""
        return self._disk.where

    def push(
        self,
        folder: Path,
        files: Mapping[str, StoredFile],
        repo: str,
        *,
        revision: str,
        tag: str | None,
        message: str,
        summary: AdapterSummary,
        private: bool = False,
    ) -> PushResult:
        """See `Hub.push`. A branch that does not exist begins a history of its own."""
        if private:
            raise HubError(
                f"{self.place} has no private repositories: whoever can read it can read all of "
                "it.",
                hint="Push without --private, to a hub that only the right people can read.",
            )
        repository = Repository(self._disk, repo)
        number, head = repository.top(check_ref(revision))
        same = head is not None and repository.manifest(head).files == files
        manifest = Manifest(
            parent=head,
            message=message,
            created=now(),
            files=files,
            summary=summary,
        )
        repository.check(manifest)
        check_branch(repo, revision, tagged=repository.tagged(revision))
        if tag is not None:
            check_tag(
                repo,
                tag,
                branches={revision, *repository.branches()},
                taken=repository.tagged(check_ref(tag)),
                commit=head if same else None,
            )

        # Of the same content too: a file that was damaged on the hub is sound again after it.
        for name, file in files.items():
            self._disk.put(blob_key(file), folder / name, file)
        if head is not None and same:
            commit, created = head, False
        else:
            commit, created = _land(repository, revision, number + 1, manifest)
        # A collection of garbage that began before it landed may have taken them for garbage.
        repository.record(repository.manifest(commit) if not created else manifest)
        for name, file in files.items():
            if not self._disk.has(blob_key(file)):
                self._disk.put(blob_key(file), folder / name, file)
        if tag is not None and (taken := repository.tag(tag, commit)) != commit:
            raise tag_is_taken(repo, tag, expected=commit, found=taken)
        return PushResult(
            repo=repo,
            revision=revision,
            commit=commit,
            url=self._disk.url(f"repos/{repo}"),
            created=created,
        )

    def resolve(self, repo: str, revision: str) -> str:
        """See `Hub.resolve`. Branches go before tags, and both before commit ids."""
        repository = self.existing(repo)
        if is_ref(check_revision(revision)):  # a whole commit id is never a name here
            head = repository.head(revision)
            commit = repository.tagged(revision) if head is None else head.commit
            if commit is not None:
                return commit
        if is_commit_prefix(revision):
            # Only what a branch leads to: a refused push has left its manifest behind.
            commits = (commit for commit, _ in repository.history())
            if (found := complete_commit(repo, revision, commits)) is not None:
                return found
        refs = [*repository.branches(), *repository.tags()]
        raise RevisionNotFoundError(
            f"{repo} has no branch, tag or commit '{revision}'.",
            hint=f"Its branches and tags are {', '.join(refs)}.",
        )

    def refs(self, repo: str) -> Refs:
        """See `Hub.refs`."""
        repository = self.existing(repo)
        heads = {branch: repository.head(branch) for branch in repository.branches()}
        return Refs(
            branches={branch: head.commit for branch, head in heads.items() if head is not None},
            tags=repository.tags(),
        )

    def present_name(self, repo: str) -> str:
        """See `Hub.present_name`. Nothing is ever renamed here."""
        return repo

    def files(self, repo: str, commit: str) -> Mapping[str, StoredFile]:
        """See `Hub.files`."""
        return Repository(self._disk, repo).manifest(commit).files

    def fetch(self, repo: str, commit: str, name: str, target: Path) -> None:
        """See `Hub.fetch`."""
        file = self.files(repo, commit)[name]
        self._disk.get(blob_key(file), target, file)

    def repositories(self) -> list[Repository]:
        """Every repository that there ever was, by name."""
        return [
            Repository(self._disk, f"{org}/{name}")
            for org in self._disk.names("repos")
            for name in self._disk.names(f"repos/{org}")
        ]

    def list_adapters(self, query: Query, report: Report) -> list[ListedAdapter]:
        """See `Hub.list_adapters`."""
        self._check_root()
        rows = []
        for repository in self.repositories():
            try:
                for branch in repository.branches()[:1]:
                    if (head := repository.head(branch)) is not None:
                        rows.append(_row(repository, branch, head.commit))
            except (HubIntegrityError, PermissionError) as error:
                why = error.message if isinstance(error, HubError) else f"{error.strerror}."
                report(f"{repository.name} is left out: {why}")
        return [row for row in rows if query.takes(row)][: query.limit]

    def list_revisions(self, repo: str) -> list[ListedRevision]:
        """See `Hub.list_revisions`."""
        # Refs before the history: what they name is then in it, whoever pushes meanwhile.
        refs = self.refs(repo)
        return [
            ListedRevision(
                commit=commit,
                parent=manifest.parent,
                message=manifest.message,
                created=manifest.created,
                branches=tuple(name for name, head in refs.branches.items() if head == commit),
                tags=tuple(name for name, tagged in refs.tags.items() if tagged == commit),
            )
            for commit, manifest in Repository(self._disk, repo).history()
        ]

    def _check_root(self) -> None:
        if not self._disk.exists():
            raise self._absent()

    def _absent(self) -> HubAbsentError:
        return HubAbsentError(
            f"There is no hub at {self.place}.",
            hint="Check the path, and that the drive is mounted; the first push makes a hub.",
        )

    def is_begun(self) -> bool:
        """Whether anything was ever pushed: a branch has an entry, or a commit is there."""
        names = self._disk.names
        for repository in self.repositories():
            home = f"repos/{repository.name}/refs/heads"
            entries = (entry for head in names(home) for entry in names(f"{home}/{head}"))
            if any(map(str.isdecimal, entries)) or repository.manifests():
                return True
        return False

    def existing(self, repo: str) -> Repository:
        """A repository that has a branch.

        Raises:
            RepositoryNotFoundError: it has none, or was never there, or there is no hub.
        """
        repository = Repository(self._disk, repo)
        self._check_root()
        if not repository.branches():
            if not self._disk.names("repos"):  # a mount point without its drive is an empty folder
                raise self._absent()
            raise RepositoryNotFoundError(
                f"The hub {self.place} has no {repo}.",
                hint=f"Check the name: `gatehub list --hub {self.place}` shows what the hub has.",
            )
        return repository


def blob_key(file: StoredFile) -> str:
    """Where a file's bytes lie."""
    return f"blobs/{file.sha256[:2]}/{file.sha256}"


def _land(repository: Repository, branch: str, number: int, manifest: Manifest) -> tuple[str, bool]:
    """Make a branch's next entry: the commit that holds its content, and if it is this one."""
    commit = repository.record(manifest)
    if repository.advance(branch, number, commit):
        return commit, True
    winner = repository.head(branch, at_least=number)
    found = None if winner is None else winner.commit
    if found is not None and repository.manifest(found).files == manifest.files:
        return found, False
    raise landed_first(repository.name, branch, expected=manifest.parent, found=found)


def _row(repository: Repository, branch: str, commit: str) -> ListedAdapter:
    manifest = repository.manifest(commit)
    summary, tensors = manifest.summary, manifest.files.get("gates.safetensors")
    return ListedAdapter(
        repo=repository.name,
        revision=branch,
        commit=commit,
        task=summary.task,
        classes=summary.classes,
        backbone=summary.backbone,
        gates=summary.gates,
        bytes=0 if tensors is None else tensors.bytes,
        accuracy=summary.accuracy,
        updated=manifest.created,
    )
