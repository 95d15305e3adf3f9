"""Tags on a Hub: each is made once, and stays where it is."""

from __future__ import annotations

from huggingface_hub.errors import HfHubHTTPError

from gatehub._huggingface.refusals import httpx
from gatehub._retries import retry
from gatehub.errors import RevisionNotFoundError
from gatehub.hub.huggingface.client import ATTEMPTS, HubClient, is_ambiguous
from gatehub.hub.names import tag_is_taken


def put_tag(client: HubClient, repo: str, tag: str, commit: str) -> None:
    """Make a tag name a commit, unless it names another one already.

    Raises:
        HubTagError: it does.
    """

    def put() -> None:
        try:
            client.api.create_tag(repo, tag=tag, revision=commit)
        except (HfHubHTTPError, httpx.HTTPError) as error:
            # Taken; or it was made, and the answer was lost.
            try:
                found = client.resolve(repo, tag)
            except RevisionNotFoundError:
                raise error from None
            if found != commit:
                raise tag_is_taken(repo, tag, expected=commit, found=found) from error

    def wait(error: Exception, failed: int) -> float | None:
        return 2.0**failed if is_ambiguous(error) else None

    with client.asking(f"Tagging {repo}", repo, commit):
        retry(put, attempts=ATTEMPTS, wait=wait)
