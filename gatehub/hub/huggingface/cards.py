"""What a Hub says of a model, as a row of a listing: strangers wrote it, so it is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gatehub.hub.huggingface.client import HubClient
from gatehub.hub.names import DEFAULT_BRANCH, check_repository, is_commit
from gatehub.hub.protocol import MAX_FIELD_CHARACTERS, ListedAdapter, Query, format_time
from gatehub.hub.reports import Report

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

# What the client raises of a card that has a key called as an argument of its own.
_STUMBLES = (TypeError, KeyError)
_EXPAND: tuple[Any, ...] = ("cardData", "sha", "lastModified", "tags")


def list_cards(client: HubClient, query: Query, report: Report) -> list[ListedAdapter]:
    """The adapters on a Hub that a query takes; see `Hub.list_adapters`."""
    base = query.base_model
    asked = ["gatehub", *([f"base_model:adapter:{base}"] if base else [])]

    def ask(expand: list[Any]) -> Iterable[ModelInfo]:
        return client.api.list_models(
            filter=asked, author=query.author, limit=query.limit, expand=expand
        )

    with client.asking("Searching", "the hub", None):
        try:
            models = list(ask([*_EXPAND]))
        except _STUMBLES:  # the client stumbles over one card, and tells nothing of the others
            models = [*_ask_each(client, [model.id for model in ask(["sha"])], report)]
    rows = []
    for model in models:
        try:
            rows.append(read_card(model))
        except ValueError as error:
            report(f"{model.id[:100]!r} is left out: {error}.")
    return [row for row in rows if query.takes(row)]


def _ask_each(client: HubClient, repos: list[str], report: Report) -> Iterator[ModelInfo]:
    for repo in repos:
        try:
            yield client.api.model_info(repo, expand=[*_EXPAND])
        except _STUMBLES:
            report(f"{repo[:100]!r} is left out: its card cannot be read.")


def read_card(model: ModelInfo) -> ListedAdapter:
    """The row of a model whose card has the block "gatehub"; see `gatehub.adapter.card`.

    Raises:
        ValueError: what about the card is not as gatehub writes it.
    """
    data: Any = model.card_data  # no card is None, and a head that is a list stays one
    card: Mapping[str, Any] = data.to_dict() if hasattr(data, "to_dict") else {}
    block = card.get("gatehub")
    if not isinstance(block, dict):
        raise ValueError("its card has no block 'gatehub'")
    commit = str(model.sha)
    if not is_commit(commit):
        raise ValueError("it has no commit")
    updated = model.last_modified
    return ListedAdapter(
        repo=check_repository(model.id),
        revision=DEFAULT_BRANCH,
        commit=commit,
        task=_text(block, "task"),
        classes=_count(block, "classes"),
        backbone=_text(block, "backbone"),
        gates=_text(block, "gates"),
        bytes=_count(block, "bytes"),
        accuracy=_accuracy(card),
        updated="" if updated is None else format_time(updated),
    )


def _text(block: Mapping[str, Any], key: str) -> str:
    text = block.get(key)
    if not (isinstance(text, str) and text.isprintable() and 0 < len(text) <= MAX_FIELD_CHARACTERS):
        raise ValueError(f"its card's {key} is not a printable text")
    return text


def _count(block: Mapping[str, Any], key: str) -> int:
    count = block.get(key)
    if type(count) is not int or count < 0:
        raise ValueError(f"its card's {key} is not a count")
    return count


def _accuracy(card: Mapping[str, Any]) -> float | None:
    """The accuracy among the card's evaluation results, whatever stands there."""
    for model in _list(card.get("model-index")):
        for result in _list(model.get("results") if isinstance(model, dict) else None):
            for metric in _list(result.get("metrics") if isinstance(result, dict) else None):
                found: dict[str, Any] = metric if isinstance(metric, dict) else {}
                value: Any = found.get("value")
                if type(value) in (int, float) and found.get("type") == "accuracy":
                    return float(value) if 0 <= value <= 1 else None
    return None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
