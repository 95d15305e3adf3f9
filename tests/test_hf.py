"""The Hub client's errors as sentences, without a token in them."""

from __future__ import annotations

import errno

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

from gatehub._hf import explain, find_cause, redact
from gatehub.errors import HubAccessError, HubError, HubUnreachableError


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
        (ValueError("\x1b[2Ja"), HubError, r"gave no valid answer \(\?\[2Ja\)"),
    ],
)
def test_each_is_one_sentence_and_a_hint(error: Exception, kind: type[HubError], text: str) -> None:
    told = explain(error, "Pulling acme/birds", "acme/birds", endpoint="https://hub.example")
    with pytest.raises(kind, match=text):
        raise told
    assert "\n" not in str(told)


def test_what_lies_behind_a_failed_upload_is_found() -> None:
    failed = RuntimeError("Error while uploading")
    failed.__cause__ = OSError(errno.ENOSPC, "x")
    assert find_cause(failed) is failed.__cause__
