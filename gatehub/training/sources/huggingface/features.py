"""Which column of a data set holds the images, and which the classes: found by their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.pictures import name_some
from gatehub.training.sources.tables.columns import check_columns

_ROLES = {"path": ("image", "Image"), "label": ("class", "ClassLabel")}
_LABEL_TYPES = ("string", "large_string", "bool", "int", "uint")


def choose_features(
    features: Mapping[str, Any], columns: Mapping[str, str], *, where: str
) -> tuple[str, str]:
    """Return the names of the column of images and of the column of classes.

    Args:
        features: the data set's, by name.
        columns: names by role: "path" for the images, "label" for the classes. What is not named
            is the only column of type Image, or of type ClassLabel.
        where: what errors call the data set.

    Raises:
        DataError: there is no such column, or more than one and none is named.
    """
    check_columns(columns)
    if "split" in columns:
        raise DataError(
            f"A column of {where} is named for the split; expected path or label: a data set's "
            "splits have names of their own.",
            hint="Leave split= out.",
        )
    image = _choose("path", features, columns, where)
    return image, _choose("label", features, columns, where)


def _choose(role: str, features: Mapping[str, Any], columns: Mapping[str, str], where: str) -> str:
    what, kind = _ROLES[role]
    listed = name_some([f"{quote(name, 60)} ({_describe(f)})" for name, f in features.items()])
    if role in columns:
        name = columns[role].strip()
        if name not in features or not _fits(role, features[name]):
            raise DataError(
                f"The columns of {where} are {listed}; expected {quote(name, 60)}, the {what}, "
                f"among them, of type {kind}{'' if role == 'path' else ', text or whole number'}.",
                hint="Name one of these with --columns.",
            )
        return name
    found = [name for name, feature in features.items() if _type(feature) == kind]
    if len(found) == 1:
        return found[0]
    option = f"--columns {role}={found[0] if found else 'NAME'}"
    if found:
        raise DataError(
            f"{where} has {len(found)} columns of type {kind}: {name_some(found)}; which is the "
            f"{what}?",
            hint=f"Say it, such as {option}.",
        )
    others = [name for name, feature in features.items() if _fits(role, feature)]
    raise DataError(
        f"{where} has no column of type {kind}; its columns are {listed}.",
        hint=f"If one of them holds the classes, name it: {option}."
        if others
        else "Give a data set for image classification.",
    )


def _fits(role: str, feature: Any) -> bool:
    kind = _type(feature)
    if role == "path":
        return kind == "Image"
    dtype = str(getattr(feature, "dtype", ""))
    return kind == "ClassLabel" or (kind == "Value" and dtype.startswith(_LABEL_TYPES))


def _type(feature: Any) -> str:
    return type(feature).__name__


def _describe(feature: Any) -> str:
    kind = _type(feature)
    return str(getattr(feature, "dtype", kind)) if kind == "Value" else kind
