"""Whom the user's token may be sent to."""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit


def choose_token(endpoint: str) -> Literal[False] | None:
    """What huggingface_hub is told as `token`: None is the user's own, False none at all."""
    return None if keeps_secrets(endpoint) else False


def advise_login(endpoint: str) -> str:
    """The hint for a refusal that a token could have prevented."""
    if keeps_secrets(endpoint):
        return "Log in with `hf auth login`, or set HF_TOKEN to a token that may."
    return f"Use the https:// address: no token is sent to {endpoint} over plain HTTP."


def keeps_secrets(endpoint: str) -> bool:
    """Whether nobody on the way to an address can read along: HTTPS, or this machine itself."""
    try:
        url = urlsplit(endpoint)
        host = url.hostname or ""
    except ValueError:
        return False
    if url.scheme.lower() == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
