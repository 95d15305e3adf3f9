"""Whatever writes a table, its rows are read back: delimiters, quotes and encodings."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehub.errors import DataError
from gatehub.training.sources.tables.delimited import DELIMITERS, read_rows

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
HEADER = ["path", "a,b;c\td", 'the "label"', "two\nlines"]

cells = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.text(',;\t"\r\n \\é', max_size=8),
)


def is_header(row: object) -> bool:
    return row == HEADER


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(cells, min_size=1, max_size=4), max_size=5),
    delimiter=st.sampled_from(sorted(DELIMITERS)),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(sorted(ENCODINGS)),
)
def test_what_is_written_is_read_back(
    tmp_path: Path, rows: list[list[str]], delimiter: str, quoting: int, encoding: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([HEADER, *rows])
    table = tmp_path / "t.csv"
    table.write_bytes(ENCODINGS[encoding] + text.getvalue().encode(encoding))
    stripped = [[cell.strip() for cell in row] for row in rows]
    expected = [HEADER, *(row for row in stripped if any(row))]
    assert [row.cells for row in read_rows(table, is_header)] == expected


def test_lines_are_counted_where_cells_have_several(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\npath\n"two\nlines"\n\nlast\n')
    assert [row.line for row in read_rows(tmp_path / "t.csv", lambda cells: False)] == [2, 4, 6]


def test_a_header_by_two_delimiters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,a;b\n1,2,3\n")
    with pytest.raises(DataError, match=r"a header by commas and by semicolons.*in quotes"):
        read_rows(tmp_path / "t.csv", lambda cells: {"a", "b"} <= {*cells, *"ab"[: len(cells) - 1]})
