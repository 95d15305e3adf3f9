"""Sharing adapters: push a folder under a name, find it, pull it anywhere.

    from gatehub.hub import pull, push, search

    push("birds", "acme/birds", tag="v1")               # to the Hugging Face Hub
    push("birds", "acme/birds", hub="/srv/hub")         # to a folder; or "s3://bucket/hub"
    search(backbone="resnet18.a1_in1k")
    folder = pull("acme/birds@v1")

A push is one commit on top of the branch's head, and no push overwrites another. A pull
resolves to a commit, proves every byte against it, and only then shows a folder.
"""

from __future__ import annotations

from gatehub.hub.listing import list_adapters, list_revisions, search
from gatehub.hub.opening import open_hub
from gatehub.hub.protocol import Hub, ListedAdapter, ListedRevision, PushResult, Query
from gatehub.hub.pulling import Pulled, pull, pull_adapter
from gatehub.hub.pushing import PushPlan, plan_push, push

__all__ = [
    "Hub",
    "ListedAdapter",
    "ListedRevision",
    "Pulled",
    "PushPlan",
    "PushResult",
    "Query",
    "list_adapters",
    "list_revisions",
    "open_hub",
    "plan_push",
    "pull",
    "pull_adapter",
    "push",
    "search",
]
