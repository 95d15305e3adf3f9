"""Which column of a data set holds the images, and which the labels: found by their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.pictures import name_some
from gatehub.training.sources.tables.columns import check_columns
from gatehub.training.sources.tables.label_sets import say_way

_CLASS, _IMAGE, _LIST = "ClassLabel", "Image", "List"
_LABEL_TYPES = ("string", "large_string", "bool", "int", "uint")
_FLAG_TYPES = ("bool", "int", "uint", "float")
_TEXTS = ("string", "large_string")
_BYTES = ("binary", "large_binary")


def choose_image(features: Mapping[str, Any], columns: Mapping[str, str], *, where: str) -> str:
    """Return the name of the column of images: the one that is named, or the only one of its type.

    Args:
        features: the data set's, by name.
        columns: names by role: "path" for the images, "label" for the labels.
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
    if "path" in columns:
        name = columns["path"].strip()
        if name in features and _is_image(features[name]):
            return name
        raise _refuse_name(name, features, where, f"the image, among them, of type {_IMAGE}")
    others = [name for name, feature in features.items() if _is_bytes(feature)]
    hint = "Give a data set for image classification."
    if others:
        hint = (
            f"If {quote(others[0], 60)} holds encoded images (PNG, JPEG and the like), name it: "
            f"--columns path={others[0]}."
        )
    return _choose_only("path", _IMAGE, features, where, hint=hint)


def choose_class(
    features: Mapping[str, Any], columns: Mapping[str, str], *, where: str, to_train: bool
) -> str:
    """Return the name of the column of classes, one for each image; see `choose_image`.

    Args:
        features: see `choose_image`.
        columns: see `choose_image`.
        where: see `choose_image`.
        to_train: see `read_source`.

    Raises:
        DataError: there is no such column, more than one and none is named, or it holds several
            labels for an image.
    """
    if "label" in columns:
        name = columns["label"].strip()
        if name in features and holds_names(features[name]):
            raise DataError(
                f"The column {quote(name, 60)} of {where} holds a list of labels for each image; "
                "expected one class.",
                hint=f"Where an image has several labels, or none, {say_way(to_train=to_train)}.",
            )
        if name in features and _is_class(features[name]):
            return name
        told = f"the class, among them, of type {_CLASS}, text or whole number"
        raise _refuse_name(name, features, where, told)
    lists = [name for name, feature in features.items() if holds_names(feature)]
    others = [name for name, feature in features.items() if _is_class(feature)]
    hint = "Give a data set for image classification."
    if lists:
        hint = (
            f"{quote(lists[0], 60)} is a list; where an image has several labels, or none, "
            f"{say_way(to_train=to_train)}."
        )
    elif others:
        hint = "If one of them holds the classes, name it: --columns label=NAME."
    return _choose_only("label", _CLASS, features, where, hint=hint)


def choose_sets(
    features: Mapping[str, Any], columns: Mapping[str, str], *, where: str
) -> str | None:
    """Return the name of the column of labels, any number of them for each image.

    What is not named is the only list of classes, or else the only list of texts.

    Args:
        features: see `choose_image`.
        columns: see `choose_image`; names of columns of 0 and 1 have | between them.
        where: see `choose_image`.

    Returns:
        None where columns of 0 and 1 are the labels.

    Raises:
        DataError: there is more than one such column and none is named, or another one is named.
    """
    if "label" in columns:
        name = columns["label"].strip()
        if name not in features and "|" in name:
            return None
        if name in features and (holds_names(features[name]) or _is_class(features[name])):
            return name
        told = f"the labels, among them, of type {_LIST} of {_CLASS} or of texts"
        raise _refuse_name(name, features, where, told)
    for kinds in ((_CLASS,), _TEXTS):
        found = [name for name, f in features.items() if _item_type(f) in kinds]
        if len(found) == 1:
            return found[0]
        if found:
            raise _refuse_rivals("label", f"{_LIST} of {kinds[0]}", found, where)
    if list_flags(features):
        return None
    raise DataError(
        f"{where} has no list of labels for each image, and no column of 0 and 1; its columns are "
        f"{_list_features(features)}.",
        hint="If one of them holds the labels, name it: --columns label=NAME. If an image has one "
        "class, leave --multi-label out.",
    )


def list_flags(features: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns of numbers, which may be 0 and 1."""
    return [
        name
        for name, feature in features.items()
        if _type(feature) == "Value" and str(feature.dtype).startswith(_FLAG_TYPES)
    ]


def holds_names(feature: Any) -> bool:
    """Whether each of a column's cells is a list of classes or of texts."""
    return _item_type(feature) in (_CLASS, *_TEXTS)


def find_names(feature: Any) -> list[str] | None:
    """Return the names of a column's classes, in their order; None where they are texts."""
    item = _item(feature)
    names = getattr(feature if item is None else item, "names", None)
    return None if names is None else list(names)


def describe_type(feature: Any) -> str:
    """Return a column's type in a few words."""
    if (item := _item(feature)) is not None:
        return f"{_LIST} of {describe_type(item)}"
    kind = _type(feature)
    return str(getattr(feature, "dtype", kind)) if kind == "Value" else kind


def _choose_only(
    role: str, kind: str, features: Mapping[str, Any], where: str, *, hint: str
) -> str:
    found = [name for name, feature in features.items() if _type(feature) == kind]
    if len(found) == 1:
        return found[0]
    if found:
        raise _refuse_rivals(role, kind, found, where)
    raise DataError(
        f"{where} has no column of type {kind}; its columns are {_list_features(features)}.",
        hint=hint,
    )


def _refuse_rivals(role: str, kind: str, found: list[str], where: str) -> DataError:
    what = {("path", _IMAGE): "which is the image", ("label", _CLASS): "which is the class"}
    return DataError(
        f"{where} has {len(found)} columns of type {kind}: {name_some(found)}; "
        f"{what.get((role, kind), 'which holds the labels')}?",
        hint=f"Say it, such as --columns {role}={found[0]}.",
    )


def _refuse_name(name: str, features: Mapping[str, Any], where: str, told: str) -> DataError:
    return DataError(
        f"The columns of {where} are {_list_features(features)}; expected {quote(name, 60)}, "
        f"{told}.",
        hint="Name one of these with --columns.",
    )


def _list_features(features: Mapping[str, Any]) -> str:
    return name_some([f"{quote(name, 60)} ({describe_type(f)})" for name, f in features.items()])


def _is_class(feature: Any) -> bool:
    kind = _type(feature)
    dtype = str(getattr(feature, "dtype", ""))
    return kind == _CLASS or (kind == "Value" and dtype.startswith(_LABEL_TYPES))


def _is_image(feature: Any) -> bool:
    return _type(feature) == _IMAGE or _is_bytes(feature)


def _is_bytes(feature: Any) -> bool:
    """Whether a column holds files as they are: bytes; or bytes and a path, as Image has them."""
    if isinstance(feature, dict):
        return "bytes" in feature and _is_bytes(feature["bytes"])
    return _type(feature) == "Value" and feature.dtype in _BYTES


def _item(feature: Any) -> Any:
    """Return what a column's lists hold; None if it holds none."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", None)


def _item_type(feature: Any) -> str | None:
    item = _item(feature)
    return None if item is None else describe_type(item)


def _type(feature: Any) -> str:
    return type(feature).__name__
