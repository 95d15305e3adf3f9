"""The forms in which labelled images are given, each read into one list of pictures."""

from __future__ import annotations

from gatehub.training.sources.folder import folders_of_images
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
    "LeftOut",
    "Picture",
    "Side",
    "Source",
    "collect_labels",
    "folders_of_images",
    "name_some",
    "read_source",
    "takes_columns",
]
