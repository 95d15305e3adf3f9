from __future__ import annotations

import pytest

from gatehub.errors import RevisionNotFoundError
from gatehub.hub.huggingface.client import complete_commit
from gatehub.hub.protocol import ListedRevision


def row(commit: str) -> ListedRevision:
    return ListedRevision(commit=commit, parent=None, message="", created="", branches=(), tags=())


ROWS = [row("abcd" + "0" * 36), row("abce" + "0" * 36)]


@pytest.mark.parametrize("beginning", ["abcd", "ABCD0", ROWS[0].commit])
def test_a_beginning_that_one_commit_has_names_it(beginning: str) -> None:
    assert complete_commit("acme/birds", beginning, ROWS) == ROWS[0].commit


def test_a_beginning_that_no_commit_has_names_none() -> None:
    assert complete_commit("acme/birds", "ffff", ROWS) is None


def test_a_beginning_that_several_commits_have_is_refused_with_all_of_them() -> None:
    with pytest.raises(
        RevisionNotFoundError, match="2 commits of acme/birds begin with 'abc'"
    ) as no:
        complete_commit("acme/birds", "abc", ROWS)
    assert all(r.commit in str(no.value.hint) for r in ROWS)
