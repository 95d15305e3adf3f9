"""Sharing adapters: push a folder under a name, pull it anywhere, list what there is.

    from gatehub.hub import list_adapters, list_revisions, pull, push

    push("birds", "acme/birds", hub="/srv/hub", tag="v1")
    folder = pull("acme/birds@v1", hub="/srv/hub")

A push is one commit on top of the branch's head, and no push overwrites another. A pull
resolves to a commit, proves every byte against it, and only then shows a folder.
"""

from __future__ import annotations

from gatehub.hub.store import Hub, ListedAdapter, ListedRevision, PushResult, open_hub
from gatehub.hub.transfer import list_adapters, list_revisions, pull, push

__all__ = [
    "Hub",
    "ListedAdapter",
    "ListedRevision",
    "PushResult",
    "list_adapters",
    "list_revisions",
    "open_hub",
    "pull",
    "push",
]
