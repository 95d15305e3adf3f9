"""The hub that a path or a URL names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from gatehub._arguments import checked
from gatehub.errors import HubError
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.names import not_a_hub
from gatehub.hub.protocol import Hub

# Two characters at least: "C:\\hub" is a path.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@checked(HubError)
def open_hub(hub: str | Path | None = None, *, trusted: bool = True) -> Hub:
    """The hub that a path or URL names.

    Args:
        hub: the URL of a Hub (`https://…`), a folder's path or `file://` URL, or the URL of any
            store that fsspec knows (`s3://bucket/hub`). None asks the environment's GATEHUB_HUB,
            and without it takes the Hugging Face Hub, or the one that HF_ENDPOINT names.
        trusted: whether the user has named it, and not a file that they were given; only then may
            it get their token.

    Raises:
        HubError: it is none that can be spoken to.
    """
    from urllib.request import url2pathname  # brings a whole HTTP client along

    place = os.environ.get("GATEHUB_HUB", "") if hub is None else str(hub)
    scheme = _URL.match(place)
    if not place or (scheme is not None and scheme[1].lower() in ("http", "https")):
        from gatehub.hub.huggingface.hub import HuggingFaceHub

        return HuggingFaceHub(place or None, trusted=trusted)
    if scheme is None:
        return FolderHub(Path(place).expanduser())
    url = urlsplit(place)
    if scheme[1].lower() != "file":
        from gatehub.hub.folder.objects import Objects

        return FolderHub(Objects(place))
    if url.netloc not in ("", "localhost") or not url.path:
        raise not_a_hub(place)
    return FolderHub(Path(url2pathname(url.path)))
