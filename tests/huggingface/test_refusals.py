"""The Hub client's errors as sentences, without a token in them."""

from __future__ import annotations

import errno

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

from gatehub._huggingface.refusals import explain, find_cause, httpx, redact
from gatehub.errors import (
    HubAccessError,
    HubBusyError,
    HubError,
    HubFileNotFoundError,
    HubUnreachableError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def test_no_token_of_any_form_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-our-own-server-0123")
    shown = redact("of-our-own-server-0123 hf_abcdefgh https://ada:pw@hub.example/x")
    assert shown == "hf_… hf_… https://…@hub.example/x"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (LocalTokenNotFoundError(), HubAccessError, "needs a token.*hf auth login"),
        (OfflineModeIsEnabled(), HubUnreachableError, "HF_HUB_OFFLINE is set"),
        (ConnectionError("no xet"), HubUnreachableError, "HF_HUB_DISABLE_XET=1"),
        (OSError(errno.ENOSPC, "x", "/c"), HubError, r"No space left on device \(/c\).*Free some"),
        (OSError(errno.EROFS, "x", "/c"), HubError, r"Read-only file system \(/c\).*writable"),
        (ValueError("a\nb"), HubError, r"gave no valid answer \(a b\)"),
        (ValueError("\x1b[2Ja"), HubError, r"gave no valid answer \(\\x1b\[2Ja\)"),
    ],
)
def test_each_is_one_sentence_and_a_hint(error: Exception, kind: type[HubError], text: str) -> None:
    told = explain(error, "Pulling acme/birds", "acme/birds", endpoint="https://hub.example")
    with pytest.raises(kind, match=text):
        raise told
    assert "\n" not in str(told)
    assert told.hint


def answer(status: int, **headers: str) -> httpx.Response:
    asked = httpx.Request("GET", "https://hub.example/api")
    return httpx.Response(status, headers=headers, request=asked)


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("GatedRepoError", 403, HubAccessError),
        ("RepositoryNotFoundError", 404, RepositoryNotFoundError),
        ("RevisionNotFoundError", 404, RevisionNotFoundError),
        ("RemoteEntryNotFoundError", 404, HubFileNotFoundError),
        ("BadRequestError", 400, HubError),
        ("HfHubHTTPError", 401, HubAccessError),
        ("HfHubHTTPError", 403, HubAccessError),
        ("HfHubHTTPError", 413, HubError),
        ("HfHubHTTPError", 429, HubBusyError),
        ("HfHubHTTPError", 503, HubUnreachableError),
        ("LocalEntryNotFoundError", None, HubUnreachableError),
        ("IncompleteSnapshotError", None, HubUnreachableError),
    ],
)
def test_each_class_of_the_client_has_a_sentence_and_a_hint(
    name: str, status: int | None, kind: type[HubError]
) -> None:
    raised = getattr(huggingface_hub.errors, name, None)
    if raised is None:
        pytest.skip("this version of the client has no such class")
    if status is not None:
        error = raised("x", response=answer(status))
    else:
        error = raised("x", *(["/cache"] if name == "IncompleteSnapshotError" else []))
    told = explain(error, "Pulling acme/birds", "acme/birds", endpoint="https://hub.example")
    assert type(told) is kind
    assert told.message.endswith(".")
    assert "\n" not in told.message
    assert told.hint


def test_what_lies_behind_a_failed_upload_is_found() -> None:
    failed = RuntimeError("Error while uploading")
    failed.__cause__ = OSError(errno.ENOSPC, "x")
    assert find_cause(failed) is failed.__cause__
