"""What may be called what on a hub: names are data from strangers, and become paths.

A repository is `org/name`. A branch or a tag has one component of the same form, and must
not look like a whole commit id. A revision is a branch, a tag, a commit id or its beginning.
No accepted name can leave the folder it is joined to, on any system.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from gatehub.errors import (
    HubConflictError,
    HubError,
    HubNameError,
    HubTagError,
    RevisionNotFoundError,
)

DEFAULT_BRANCH = "main"
MAX_NAME_CHARACTERS = 96
MIN_PREFIX_CHARACTERS = 4

_COMPONENT = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARACTERS - 1}}}")
_COMMIT_LIKE = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
_PREFIX = re.compile(rf"[0-9A-Fa-f]{{{MIN_PREFIX_CHARACTERS},64}}")
_RULE = (
    f"1 to {MAX_NAME_CHARACTERS} letters, digits, '.', '_' or '-', beginning with a letter "
    "or a digit, without '..'"
)


def is_component(name: str) -> bool:
    """Whether a name can stand as one component of a path without leading anywhere else."""
    return _COMPONENT.fullmatch(name) is not None and ".." not in name


def is_ref(name: str) -> bool:
    """Whether a branch or a tag may be called so."""
    return is_component(name) and _COMMIT_LIKE.fullmatch(name) is None


def check_repository(name: str) -> str:
    """Return a repository's name.

    Raises:
        HubNameError: the name is not `org/name`.
    """
    parts = name.split("/")
    if len(parts) == 2 and all(map(is_component, parts)):
        return name
    if "@" in name:
        hint = "Here the revision is an argument of its own, not a part of the name."
    else:
        hint = f"Give org/name, each of {_RULE}."
    raise HubNameError(f"{_shown(name)} is not the name of a repository.", hint=hint)


def check_ref(name: str) -> str:
    """Return the name of a branch or a tag.

    Raises:
        HubNameError: the name is malformed, or could be taken for a commit id.
    """
    if not is_component(name):
        raise HubNameError(
            f"{_shown(name)} is not the name of a branch or tag.", hint=f"Use {_RULE}."
        )
    if not is_ref(name):
        raise HubNameError(
            f"{_shown(name)} looks like a commit id, so no branch or tag may be called that.",
            hint="Choose a name.",
        )
    return name


def check_revision(name: str) -> str:
    """Return a revision: a branch, a tag, a commit id or its beginning.

    Raises:
        HubNameError: the name can be none of them.
    """
    if not is_component(name):
        raise HubNameError(
            f"{_shown(name)} is not a revision.",
            hint=f"Give a branch, a tag or at least {MIN_PREFIX_CHARACTERS} digits of a commit id.",
        )
    return name


def check_file_name(name: str) -> str:
    """Return the name of a file in a commit.

    Raises:
        HubNameError: the name could be a path.
    """
    if not is_component(name):
        raise HubNameError(f"{_shown(name)} is not the name of a file in a repository.")
    return name


def split_name(name: str) -> tuple[str, str]:
    """Split `org/name[@revision]` into repository and revision, by default `main`.

    Raises:
        HubNameError: either part is not valid.
    """
    repository, at, revision = name.partition("@")
    check_repository(repository)
    return repository, check_revision(revision) if at else DEFAULT_BRANCH


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit id: 40 digits on a Hub, 64 in a folder."""
    return _COMMIT_LIKE.fullmatch(revision) is not None


def is_commit_prefix(revision: str) -> bool:
    """Whether a revision could be the beginning of a commit id."""
    return _PREFIX.fullmatch(revision) is not None


def complete_commit(repo: str, beginning: str, commits: Iterable[str]) -> str | None:
    """Return the one of a repository's commits that begins so, or None.

    Raises:
        RevisionNotFoundError: several do.
    """
    found = [commit for commit in commits if commit.startswith(beginning.lower())]
    if len(found) > 1:
        raise RevisionNotFoundError(
            f"{len(found)} commits of {repo} begin with '{beginning}'.",
            hint=f"Give more digits: {', '.join(sorted(found))}.",
        )
    return found[0] if found else None


def _shown(name: str) -> str:
    """A name as it may stand in an error message, whatever it holds."""
    return repr(name if len(name) <= MAX_NAME_CHARACTERS else name[:MAX_NAME_CHARACTERS] + "…")


def check_branch(repo: str, branch: str, *, tagged: str | None) -> None:
    """Refuse a branch before anything is pushed to it.

    Args:
        repo: `org/name`.
        branch: the branch's name.
        tagged: the commit that a tag of this name names, if any.

    Raises:
        HubNameError: the name is malformed, or a tag's.
    """
    check_ref(branch)
    if tagged is not None:
        raise HubNameError(f"'{branch}' is a tag of {repo}, and tags stay where they are.")


def check_tag(
    repo: str, tag: str, *, branches: Collection[str], taken: str | None, commit: str | None
) -> None:
    """Refuse a tag before anything is pushed that could not be tagged after it.

    Args:
        repo: `org/name`.
        tag: the tag's name.
        branches: those of the repository, the one that is pushed to included.
        taken: the commit that the tag names already, if any.
        commit: the commit to be tagged, None for one that the push will make.

    Raises:
        HubNameError: the name is malformed, or a branch's.
        HubTagError: the tag names another commit.
    """
    if check_ref(tag) in branches:
        raise HubNameError(
            f"'{tag}' is a branch of {repo}, so no tag may be called that.",
            hint="Choose another tag.",
        )
    if taken is not None and taken != commit:
        raise tag_is_taken(repo, tag, expected=commit, found=taken)


def tag_is_taken(repo: str, tag: str, *, expected: str | None, found: str) -> HubTagError:
    """Return the refusal of a tag that names another commit.

    Args:
        repo: `org/name`.
        tag: the tag.
        expected: the commit that it was to name, None for one that is not made yet.
        found: the commit that it names.
    """
    return HubTagError(
        f"The tag '{tag}' of {repo} names {found}, so it cannot name "
        f"{expected or 'what is pushed now'}.",
        hint="A tag stays where it is: choose another.",
        expected=expected,
        found=found,
    )


def landed_first(
    repo: str, branch: str, *, expected: str | None, found: str | None
) -> HubConflictError:
    """Return the refusal of a push that another one has overtaken.

    Args:
        repo: `org/name`.
        branch: the branch.
        expected: the head that the push was built on, None for no commit yet.
        found: the head that there is.
    """
    return HubConflictError(
        f"Another push to {repo}@{branch} landed first: expected its head to be "
        f"{expected or 'no commit yet'}, but it is {found}.",
        hint="Nothing was overwritten. Push again (or with --force) to put yours on top of it.",
        expected=expected,
        found=found,
    )


def not_a_hub(place: str) -> HubError:
    """The refusal of what nobody here speaks to."""
    from gatehub._huggingface.refusals import redact

    return HubError(
        f"'{redact(place)}' is not a hub that this version of gatehub speaks to.",
        hint="Give the URL of a Hub (https://…), a folder, or the URL of a store that fsspec knows "
        "(s3://bucket/hub).",
    )
