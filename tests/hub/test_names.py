"""Names that strangers choose, and which become paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.errors import HubNameError, HubTagError, RevisionNotFoundError
from gatehub.hub.names import (
    check_branch,
    check_file_name,
    check_ref,
    check_repository,
    check_revision,
    check_tag,
    complete_commit,
    is_commit_prefix,
    is_component,
    split_name,
)

COMMIT = "3f" * 32
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/..",
    "a..b",
    ".hidden",
    "-rf",
    "_x",
    "a b",
    "a\n",
    "a\0",
    "a\\b",
    "C:",
    "a:b",
    "vögel",
    "a\u2215b",  # a division slash
    "\uff0e\uff0e",  # full-width dots, which normalise to ".."
    "~",
    "$HOME",
    "%2e%2e",
    "x" * 97,
]
# What could be built into a path, denser than plain text is in such strings.
TEXTS = st.text() | st.text(alphabet="aZ0._-/\\@~: \n\0", max_size=12)


@pytest.mark.parametrize("name", ["a", "Z", "0", "birds", "a.b", "v1.0-rc_1", "x" * 96, "a-"])
def test_plain_names_are_accepted(name: str) -> None:
    assert is_component(name)
    assert check_repository(f"{name}/{name}") == f"{name}/{name}"
    assert check_ref(name) == check_revision(name) == check_file_name(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_everywhere(name: str) -> None:
    for repository in (f"{name}/birds", f"acme/{name}"):
        with pytest.raises(HubNameError, match=r"is not the name of a repository\. Give org/name"):
            check_repository(repository)
    with pytest.raises(HubNameError, match="is not the name of a branch or tag"):
        check_ref(name)
    with pytest.raises(HubNameError, match="is not a revision"):
        check_revision(name)
    with pytest.raises(HubNameError, match="is not the name of a file"):
        check_file_name(name)


@pytest.mark.parametrize("name", ["birds", "/birds", "acme/", "a/b/c", "//", "/", "/etc/passwd"])
def test_a_repository_has_exactly_two_parts(name: str) -> None:
    with pytest.raises(HubNameError, match="is not the name of a repository"):
        check_repository(name)


def test_a_revision_in_a_repository_name_gets_its_own_hint() -> None:
    with pytest.raises(HubNameError, match="the revision is an argument of its own"):
        check_repository("acme/birds@v1")


@pytest.mark.parametrize("name", [COMMIT, COMMIT.upper(), COMMIT[:40]])
def test_a_ref_never_looks_like_a_commit(name: str) -> None:
    with pytest.raises(HubNameError, match="looks like a commit id"):
        check_ref(name)
    assert check_revision(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme/birds", ("acme/birds", "main")),
        ("acme/birds@v1.0", ("acme/birds", "v1.0")),
        (f"acme/birds@{COMMIT}", ("acme/birds", COMMIT)),
    ],
)
def test_split_name(name: str, expected: tuple[str, str]) -> None:
    assert split_name(name) == expected


@pytest.mark.parametrize(
    "name", ["acme/birds@", "acme/birds@a@b", "@v1", "acme@v1/birds", "acme/birds@../x"]
)
def test_split_name_refuses_what_is_malformed(name: str) -> None:
    with pytest.raises(HubNameError):
        split_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abcd", True),
        ("ABCD", True),
        (COMMIT, True),
        ("abc", False),
        ("abcg", False),
        (COMMIT + "0", False),
    ],
)
def test_commit_prefix(text: str, expected: bool) -> None:
    assert is_commit_prefix(text) is expected


def test_an_error_about_a_long_name_is_short() -> None:
    with pytest.raises(HubNameError) as caught:
        check_revision("x" * 100_000)
    assert len(str(caught.value)) < 300


@given(TEXTS)
def test_no_accepted_component_leaves_its_folder(name: str) -> None:
    if is_component(name):
        assert os.path.normpath(f"/root/{name}") == f"/root/{name}"
        assert Path("/root", name).parent == Path("/root")


@given(TEXTS)
def test_no_accepted_repository_leaves_its_root(name: str) -> None:
    try:
        check_repository(name)
    except HubNameError:
        return
    path = os.path.normpath(os.path.join("/root", name))
    assert path == f"/root/{name}"
    assert Path(path).parents[1] == Path("/root")


@given(TEXTS, TEXTS)
def test_split_name_returns_only_checked_parts(repository: str, revision: str) -> None:
    try:
        parts = split_name(f"{repository}@{revision}")
    except HubNameError:
        return
    assert parts == (check_repository(repository), check_revision(revision))


COMMITS = ["abcd" + "0" * 36, "abce" + "0" * 36]


@pytest.mark.parametrize("beginning", ["abcd", "ABCD0", COMMITS[0]])
def test_a_beginning_that_one_commit_has_names_it(beginning: str) -> None:
    assert complete_commit("acme/birds", beginning, COMMITS) == COMMITS[0]


def test_a_beginning_that_no_commit_has_names_none() -> None:
    assert complete_commit("acme/birds", "ffff", COMMITS) is None


def test_a_beginning_that_several_commits_have_is_refused_with_all_of_them() -> None:
    with pytest.raises(
        RevisionNotFoundError, match="2 commits of acme/birds begin with 'abc'"
    ) as no:
        complete_commit("acme/birds", "abc", COMMITS)
    assert all(commit in str(no.value.hint) for commit in COMMITS)


@pytest.mark.parametrize(("taken", "commit"), [(None, None), (None, COMMIT), (COMMIT, COMMIT)])
def test_a_tag_that_is_free_or_names_the_commit_is_allowed(
    taken: str | None, commit: str | None
) -> None:
    check_tag("acme/birds", "v1", branches={"main", "v2"}, taken=taken, commit=commit)
    check_branch("acme/birds", "main", tagged=None)


@pytest.mark.parametrize("commit", [None, COMMITS[1]])
def test_a_tag_never_moves(commit: str | None) -> None:
    with pytest.raises(HubTagError, match=f"'v1' of acme/birds names {COMMITS[0]}") as caught:
        check_tag("acme/birds", "v1", branches={"main"}, taken=COMMITS[0], commit=commit)
    assert (caught.value.expected, caught.value.found) == (commit, COMMITS[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tag_and_a_branch_have_names_of_one_form(name: str) -> None:
    with pytest.raises(HubNameError, match="is not the name of a branch or tag"):
        check_tag("acme/birds", name, branches=(), taken=None, commit=None)
    with pytest.raises(HubNameError, match="is not the name of a branch or tag"):
        check_branch("acme/birds", name, tagged=None)


def test_no_tag_is_called_as_a_branch_is() -> None:
    with pytest.raises(HubNameError, match="'dev' is a branch of acme/birds"):
        check_tag("acme/birds", "dev", branches={"main", "dev"}, taken=COMMIT, commit=COMMIT)
    with pytest.raises(HubNameError, match="'v1' is a tag of acme/birds"):
        check_branch("acme/birds", "v1", tagged=COMMIT)
