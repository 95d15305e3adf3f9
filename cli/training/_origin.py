"""`--init-from`: the adapter that a run goes on from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub._text import shorten
from gatehub.cli._options import find_adapter
from gatehub.cli._output import Output

if TYPE_CHECKING:
    from gatehub.backbone.images import ImageRules
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.training.data import ImageData
    from gatehub.training.start.origin import Origin

_MAX_CHARACTERS = 30
_KEPT = "\\[default: {}; with --init-from, the adapter's]"

InitFromOption = Annotated[
    str | None,
    typer.Option(
        "--init-from",
        metavar="FOLDER",
        help="Go on from an adapter of the same backbone, a folder or ORG/NAME\\[@REVISION] on a "
        "hub: its values are the start, classes that it lacks come behind its own.",
    ),
]
GatesOption = Annotated[
    str | None,
    typer.Option("--gates", help=f"auto, full, lowrank:R, scale or none. {_KEPT.format('auto')}"),
]
NormOption = Annotated[
    str | None,
    typer.Option(
        "--norm",
        help="Normalisation values that the task trains: frozen (none), affine, or stats (running "
        f"statistics too). {_KEPT.format('affine')}",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="First gated stage, such as layer3; auto: the latest that costs at most --max-drop, "
        f"found by training from several. {_KEPT.format('all are gated')}",
    ),
]
ShiftOption = Annotated[
    bool,
    typer.Option(
        "--shift",
        help="Train the biases of gated layers, too (Meta-Transfer Learning, CVPR 2019): those "
        "that no batch norm follows, which would take a shift away. Refused where there are none.",
    ),
]
BackgroundOption = Annotated[
    str | None,
    typer.Option(
        "--background",
        help=f"Colour behind transparent pixels, kept in the adapter. {_KEPT.format('white')}",
    ),
]


def find_origin(
    output: Output,
    place: str | None,
    hub: str | None,
    *,
    input_size: int | None,
    rules: ImageRules | None,
) -> Origin | None:
    """Load the adapter that was named, and refuse to prepare images in another way than it does."""
    from gatehub.adapter import Adapter
    from gatehub.training.start.origin import Origin

    if place is None:
        return None
    origin = Origin(adapter=Adapter.load(find_adapter(output, place, hub)), name=place)
    origin.check_preprocessing(
        adjust_images(origin.adapter.preprocessing, input_size=input_size, rules=rules)
    )
    return origin


def adjust_images(
    preprocessing: Preprocessing, *, input_size: int | None, rules: ImageRules | None
) -> Preprocessing:
    """Return how images are prepared, with what was asked for otherwise."""
    if rules is not None:
        preprocessing = replace(preprocessing, image_rules=rules)
    return preprocessing if input_size is None else preprocessing.with_input_size(input_size)


def describe_origin(output: Output, origin: Origin, images: ImageData) -> None:
    """Say which classes stay, which are new, and which of them have no images."""
    labels = origin.extend_labels(images.labels)
    known = origin.adapter.labels
    taken = {labels[place] for place in images.with_labels(labels).train.count_labels()}
    new, absent = labels[len(known) :], [label for label in known if label not in taken]
    kind = "labels" if images.multi_label else "classes"
    output.paragraph(
        f"Going on from {origin.name}, the adapter '{origin.adapter.task}' of {len(known):,} "
        f"{kind}; new {kind}: {_name(new)}."
    )
    if absent and images.multi_label:
        output.paragraph(
            f"No images to train on have: {_name(absent)}. Whether these images have them is taken "
            "as not known: their rows of the head and their thresholds stay, and the figures below "
            "are of the others. Gates that change may still change how well they are found; to "
            "hold them, add images of each."
        )
    elif absent:
        output.paragraph(
            f"No images to train on of: {_name(absent)}. These classes stay in the adapter, but "
            "what it knows of them is not held, and images of others may overwrite it wholly, "
            "which the accuracy below does not show. To keep it, add images of each."
        )


def _name(labels: tuple[str, ...] | list[str]) -> str:
    from gatehub.training.sources import name_some

    return name_some([shorten(label, _MAX_CHARACTERS) for label in labels])
