"""The forms in which labelled images are given, each read into one list of pictures."""

from __future__ import annotations

from gatehub.training.sources.folder import folders_of_images
from gatehub.training.sources.given import Given, list_given, name_given, spell_given
from gatehub.training.sources.pictures import (
    LeftOut,
    Picture,
    Side,
    Source,
    collect_labels,
    name_some,
)
from gatehub.training.sources.reading import FORMS, read_source, takes_columns

__all__ = [
    "FORMS",
    "Given",
    "LeftOut",
    "Picture",
    "Side",
    "Source",
    "collect_labels",
    "folders_of_images",
    "list_given",
    "name_given",
    "name_some",
    "read_source",
    "spell_given",
    "takes_columns",
]
