"""Which column of a table is the path, which the label and which the split."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from gatehub._text import quote, shorten
from gatehub.errors import DataError
from gatehub.training.sources.pictures import name_some

_ROLES = ("path", "label", "split")
NEEDED = ("path", "label")
# Without case and without what parts words: "File Name" is file_name is filename.
# A fold is no split: who cross-validates has several, and each of them is on both sides.
_USUAL = {
    "path": frozenset(
        {
            *("path", "file", "filename", "filepath", "image", "imagefile", "imagefilename"),
            *("imagename", "imagepath", "img", "imgfile", "imgname", "imgpath"),
        }
    ),
    "label": frozenset(
        {
            *("label", "labelname", "class", "classlabel", "classname", "target", "targetname"),
            *("category", "categoryname", "species"),
        }
    ),
    "split": frozenset({"split", "set", "subset"}),
}
# Where no column has one of those.
_ELSE = {
    "path": frozenset[str](),
    "label": frozenset(
        {
            *("labels", "labelnames", "classes", "classnames", "targets", "categories"),
            *("tag", "tags", "findinglabels"),
        }
    ),
    "split": frozenset({"isval", "isvalid", "isvalidation"}),
}


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse names of columns that no table could have; see `read_source`.

    Raises:
        DataError: no mapping of text to text, an unknown role, or one column for two of them.
    """
    if not isinstance(columns, Mapping) or not all(
        isinstance(text, str) for pair in columns.items() for text in pair
    ):
        raise DataError(
            f"columns is {columns!r:.100}; expected names of columns by what is in them, such as "
            "{'path': 'file', 'label': 'class'}."
        )
    for role, name in columns.items():
        if role not in _ROLES:
            raise DataError(f"A column for {quote(role)} is named; expected path, label or split.")
        if role in NEEDED and not name.strip():
            raise DataError(f"The column of the {role} is {name!r}; expected its name.")
    names = [name.strip() for name in columns.values()]
    if len(set(names)) < len(names):
        raise DataError(f"The columns {name_some(names)} are named; expected different ones.")


def write_columns(columns: Mapping[str, str]) -> str:
    """Write names of columns by what is in them on one line; `read_columns` reads it."""
    return json.dumps(dict(columns), ensure_ascii=False)


def read_columns(text: object) -> dict[str, str]:
    """Read what `write_columns` wrote; nothing of what it did not write."""
    try:
        columns = json.loads(text) if isinstance(text, str) else {}
        check_columns(columns)
    except (ValueError, DataError):
        return {}
    return dict(columns)


def has_columns(
    header: Sequence[str], columns: Mapping[str, str], needed: Sequence[str] = NEEDED
) -> bool:
    """Whether a header has a column for all that a table needs, be it more than one."""
    return all(_list_candidates(header, columns, role) for role in needed)


def choose_columns(
    header: Sequence[str],
    columns: Mapping[str, str],
    *,
    where: str,
    needed: Sequence[str] = NEEDED,
) -> dict[str, int]:
    """Find the columns that are used: those that are named, and else those of the usual names.

    Args:
        header: the names of the table's columns.
        columns: names by role, "path", "label" or "split"; an empty one for a table without.
        where: what errors call the header.
        needed: the roles that must have a column.

    Returns:
        The place in the header of each role that has a column.

    Raises:
        DataError: there is no column for a role that needs one, or more than one for a role.
    """
    places = {}
    for role in _ROLES:
        found = _list_candidates(header, columns, role)
        if len(found) > 1:
            raise _refuse_rivals(role, header, [header[place] for place in found], where)
        if found:
            places[role] = found[0]
        elif role in needed or (columns.get(role) and role not in NEEDED):
            raise _refuse_lack(role, header, columns, where)
    return places


def describe_columns(table: Path, header: Sequence[str], places: Mapping[str, int]) -> list[str]:
    """Say which columns are used, where that is not plain by their names."""
    if all(header[place] == role for role, place in places.items()):
        return []
    used = ", ".join(f"{quote(header[place], 60)} is the {role}" for role, place in places.items())
    return [f"Columns of {table.name}: {used}."]


def _list_candidates(header: Sequence[str], columns: Mapping[str, str], role: str) -> list[int]:
    named = [name.strip() for name in columns.values()]
    taken = {*named, *(part.strip() for name in named for part in name.split("|"))}
    if role in columns:
        wanted = columns[role].strip()
        return [place for place, name in enumerate(header) if wanted and name == wanted]
    free = [place for place, name in enumerate(header) if name not in taken]
    found = [place for place in free if _squash(header[place]) in _USUAL[role]]
    found = found or [place for place in free if _squash(header[place]) in _ELSE[role]]
    # A column called by the very word is it, whatever stands beside it.
    return [place for place in found if header[place] == role] or found


def _squash(name: str) -> str:
    return "".join(character for character in name.casefold() if character not in " _-")


def _refuse_rivals(role: str, header: Sequence[str], names: Sequence[str], where: str) -> DataError:
    if len(set(names)) < len(names):
        return DataError(
            f"{where}: the columns are {_list_names(header)}; expected those of path, label and "
            "split once each.",
            hint=f"Rename all but one of those that are called alike; one is the {role}.",
        )
    listed = " and ".join(quote(name, 60) for name in names)
    return DataError(
        f"{where}: the columns {listed} may each be the {role}; expected one.",
        hint=f"Say which it is, such as {_spell_option({role: names[0]})}.",
    )


def _refuse_lack(
    role: str, header: Sequence[str], columns: Mapping[str, str], where: str
) -> DataError:
    listed = _list_names(header)
    if role in columns:
        return DataError(
            f"{where}: the columns are {listed}; expected {quote(columns[role], 60)}, the {role}, "
            "among them.",
            hint="Name one of these with --columns.",
        )
    lacking = [role for role in NEEDED if not _list_candidates(header, columns, role)]
    return DataError(
        f"{where}: the columns are {listed}; expected path and label, and optionally split. "
        f"None of these is known to be the {' or the '.join(lacking)}.",
        hint=f"Name them: {_spell_option(dict.fromkeys(lacking, 'COLUMN'))}. If that line is no "
        "header, put one above it, such as path,label.",
    )


def _list_names(header: Sequence[str]) -> str:
    return name_some([shorten(name, 60) for name in header])


def _spell_option(columns: Mapping[str, str]) -> str:
    pairs = ",".join(f"{role}={shorten(name, 60)}" for role, name in columns.items())
    return f"--columns {shlex.quote(pairs)}"
