"""Options that several commands share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub.cli._output import Output

if TYPE_CHECKING:
    from gatehub.adapter import Adapter
    from gatehub.backbone import Backbone
    from gatehub.errors import GatehubError

BACKBONE_HELP = (
    "timm name with or without tag, hf-hub:ORG/NAME, local-dir:PATH, or demo, "
    "the small one that ships with gatehub."
)
_SOURCE_HELP = (
    "Folder (DIR/train/CLASS/* with val and test beside it if there are any, or DIR/CLASS/*), "
    "table of path and label (.csv, .tsv, .txt; see --columns; with several labels an image: see "
    "train --multi-label), hf:NAME\\[:SPLIT] (a data set of Hugging Face's, or a folder of one), "
    "sklearn:digits, or glyphs:SCRIPT. "
    "A classes.txt in the folder or beside the table, one class a line, orders an adapter's "
    "labels. Several tables of one task: --data for each; an image has the labels of all."
)


def _parse_columns(text: str) -> dict[str, str]:
    """Read ROLE=NAME pairs with commas between them."""
    from gatehub.errors import DataError
    from gatehub.training.sources.tables.columns import check_columns

    pairs = [part.partition("=") for part in text.split(",")]
    columns = {role.strip(): name.strip() for role, _, name in pairs}
    if not all(equals for _, equals, _ in pairs) or len(columns) < len(pairs):
        raise typer.BadParameter(
            f"'{text}' is not of the form path=NAME,label=NAME,split=NAME, each once at most."
        )
    try:
        check_columns(columns)
    except DataError as error:
        raise typer.BadParameter(error.message) from error
    return columns


ADAPTER_HELP = (
    "An adapter's folder, or ORG/NAME\\[@REVISION] on a hub; a folder of that name first."
)

AdapterArgument = Annotated[str, typer.Argument(metavar="FOLDER", help=ADAPTER_HELP)]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="An adapter's folder.")]
BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help=f"{BACKBONE_HELP} \\[default: the adapter's own]"),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Safetensors file with the weights of a timm name."),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, or cuda:N; auto uses a GPU if there is one."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes that decode images. \\[default: by data and processor]"
    ),
]
DataOption = Annotated[list[str], typer.Option("--data", metavar="SRC", help=_SOURCE_HELP)]
MeasureOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="SRC", help=f"Measure and choose. {_SOURCE_HELP}"),
]
ColumnsOption = Annotated[
    dict[str, str] | None,
    typer.Option(
        "--columns",
        metavar="ROLE=NAME,...",
        parser=_parse_columns,
        help="Columns of a table, such as path=file,label=class,split=set. Those not given are "
        "found where only one has a usual name; split= means that there is none.",
    ),
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be decoded.")
]
HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        help="https://… of a Hub, a folder, or s3://BUCKET/… and the like. "
        "\\[default: GATEHUB_HUB, or else the Hugging Face Hub or HF_ENDPOINT]",
    ),
]


def find_adapter(output: Output, place: str, hub: str | None) -> Path:
    """The folder of an adapter that was named by it, or by its name on a hub."""
    from gatehub._places import find_folder

    def pull_it(name: str) -> Path:
        from gatehub.hub import pull

        output.govern_client_bars()
        return pull(name, hub=hub, report=output.note)

    return find_folder(place, pull=pull_it)


def find_adapters(
    output: Output,
    places: Sequence[str],
    hub: str | None,
    *,
    left_out: Callable[[str, GatehubError], None] | None = None,
) -> tuple[dict[str, Path], Adapter]:
    """The folders of several adapters by their tasks, and one of them, loaded.

    That one is of the backbone that most of them have, and the last of those.

    Args:
        output: for notes.
        places: folders, or names on a hub.
        hub: which one.
        left_out: is told of an adapter that cannot be used, unless none can; None to refuse it.
    """
    from gatehub.adapter import Adapter
    from gatehub.errors import AdapterError, GatehubError

    folders: dict[str, Path] = {}
    counts: Counter[str] = Counter()
    last: dict[str, Adapter] = {}
    for number, place in enumerate(places, start=1):
        try:
            folder = find_adapter(output, place, hub)
            adapter = Adapter.load(folder)
            if adapter.task in folders:
                raise AdapterError(
                    f"Two of the folders hold a task named '{adapter.task}'; '{place}' is the "
                    "second.",
                    hint="Name one of them, or train it under another name.",
                )
        except GatehubError as error:
            if left_out is None or (number == len(places) and not folders):
                raise
            left_out(place, error)
            continue
        folders[adapter.task] = folder
        counts[adapter.backbone.digest] += 1
        last[adapter.backbone.digest] = adapter
    return folders, last[max(reversed(list(counts)), key=counts.__getitem__)]


def open_backbone(
    adapter: Adapter, name: str | None, weights: Path | None, device: str
) -> Backbone:
    """Load the backbone that was named, or else the adapter's own."""
    from gatehub.backbone import load_backbone
    from gatehub.backbone.device import find_device

    where = find_device(device)
    if name is None and weights is not None:
        name = adapter.backbone.name
    return load_backbone(name or adapter.backbone, weights=weights).to(where)
