"""An adapter's card before it is pushed: rewritten, and checked against the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehub._disk import write_whole
from gatehub._text import quote, shorten
from gatehub.adapter.front_matter import read_front_matter
from gatehub.errors import AdapterExistsError, HubError

if TYPE_CHECKING:
    from gatehub.adapter.config import AdapterConfig

MAX_CARD_BYTES = 1_000_000
_MAX_UNKNOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReport:
    """What stands in a card.

    Attributes:
        text: the whole card.
        metadata: what its head tells a Hub.
        problems: a sentence for each thing that a Hub or `gatehub search` would get wrong.
        advice: a sentence for each thing that is missing, and may be.
    """

    text: str
    metadata: dict[str, Any]
    problems: tuple[str, ...]
    advice: tuple[str, ...]


def check_card(folder: str | Path) -> CardReport:
    """Read an adapter's card and check it against the adapter.

    Raises:
        AdapterFormatError: the folder is not a sound adapter.
    """
    from gatehub.adapter.files import verify_adapter
    from gatehub.adapter.folder import CARD_FILE, TENSORS_FILE

    folder = Path(folder)
    config = verify_adapter(folder)
    with (folder / CARD_FILE).open("rb") as file:
        data = file.read(MAX_CARD_BYTES + 1)
    text = "\n".join(data[:MAX_CARD_BYTES].decode("utf-8", "replace").split("\r\n"))
    try:
        if len(data) > MAX_CARD_BYTES:
            raise ValueError(f"It has more than {MAX_CARD_BYTES:,} bytes, which no hub takes.")
        metadata, advice = read_front_matter(text)
    except ValueError as error:
        return CardReport(text=text, metadata={}, problems=(str(error),), advice=())
    size = (folder / TENSORS_FILE).stat().st_size
    return CardReport(
        text=text,
        metadata=metadata,
        problems=tuple(_find_problems(metadata, config, size)),
        advice=(*advice, *_advise(metadata, config, folder)),
    )


def write_card(
    folder: str | Path, *, license: str | None = None, datasets: Sequence[str] = ()
) -> None:
    """Rewrite an adapter's card, edits made by hand included, and draw its gates.

    A folder with other files gets no picture: they would be lost when it is replaced. Nor does the
    current folder, which is not replaced.

    Args:
        folder: a sound adapter.
        license: under which terms it is given away, in the Hub's spelling ("apache-2.0").
        datasets: the data's repositories on the Hub.

    Raises:
        AdapterFormatError: the folder is not a sound adapter.
        AdapterExistsError: its card is a link, as in the cache of the Hub's client, where what it
            leads to belongs to others too.
        HubError: a license or data set that is not a name.
    """
    from gatehub.adapter.card import GATES_FILE, render_card
    from gatehub.adapter.files import attach_file, read_adapter
    from gatehub.adapter.folder import CARD_FILE, TENSORS_FILE
    from gatehub.adapter.gate_map import draw_gates

    for name in (*datasets, *([license] if license else [])):
        if not name.isprintable() or len(name) > 200 or " " in name:
            raise HubError(f"{quote(name)} is not the name of a license or data set on the Hub.")
    folder = Path(folder)
    config, tensors = read_adapter(folder)
    if (folder / CARD_FILE).is_symlink():
        raise AdapterExistsError(
            f"'{folder / CARD_FILE}' is a link, and is left as it is.",
            hint="Copy the folder with the files themselves (cp -rL), and write the card there.",
        )
    if GATES_FILE not in config.files and config.layout.sites:
        picture = draw_gates(config.layout, tensors, title=f"Gates of {config.task}")
        with suppress(AdapterExistsError):
            config = attach_file(folder, GATES_FILE, picture)
    size = (folder / TENSORS_FILE).stat().st_size
    text = render_card(config, adapter_bytes=size, license=license, datasets=datasets)
    write_whole(folder / CARD_FILE, text.encode())


def _find_problems(metadata: dict[str, Any], config: AdapterConfig, size: int) -> list[str]:
    from gatehub.adapter.card import describe_adapter, name_base_model

    base = name_base_model(config)
    expected = {
        "library_name": "gatehub",
        "pipeline_tag": "image-classification",
        "base_model": base,
        "base_model_relation": base and "adapter",
    }
    found = _compare("", metadata, expected)
    block = metadata.get("gatehub")
    told: dict[str, Any] = block if isinstance(block, dict) else {}
    right = describe_adapter(config, size)
    more = {key: None for key in told if key not in right}
    found += _compare("gatehub.", told, {**dict(list(more.items())[:_MAX_UNKNOWN]), **right})
    if len(more) > _MAX_UNKNOWN:
        found.append(f"Its block gatehub has {len(more) - _MAX_UNKNOWN:,} more such fields.")
    tags = metadata.get("tags")
    if not isinstance(tags, list) or "gatehub" not in tags:
        found.append("Its tags are no list with 'gatehub', so `gatehub search` would not find it.")
    return found


def _compare(prefix: str, found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    # True is 1 to Python, and 3.0 is 3, but not to those who count the classes.
    return [
        f"Its {shorten(f'{prefix}{key}', 80)} is {_show(found.get(key))}; expected {_show(value)}."
        for key, value in expected.items()
        if (type(found.get(key)), found.get(key)) != (type(value), value)
    ]


def _show(value: object) -> str:
    return shorten(repr(value))


def _advise(metadata: dict[str, Any], config: AdapterConfig, folder: Path) -> list[str]:
    from gatehub.adapter.card import GATES_FILE
    from gatehub.adapter.folder import check_movable, find_foreign

    advice = []
    if config.layout.sites and GATES_FILE not in config.files:
        after = ""
        if foreign := find_foreign(folder):
            after = f" once {quote(foreign[0], 80)} lies elsewhere"
        else:
            try:
                check_movable(folder)
            except AdapterExistsError:
                after = " when it is called from outside the folder"
        advice.append(f"It has no picture of its gates (--write draws it{after}).")
    if "license" not in metadata:
        advice.append("It names no license (--license apache-2.0 --write).")
    if "datasets" not in metadata:
        advice.append("It names no data set on the Hub (--dataset ORG/NAME --write).")
    return advice
