"""CSV files that a spreadsheet opens without running anything, and that are read back as they were.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and what names of classes and
files begin with is up to whoever named them. So such text is written with an apostrophe in front, which spreadsheets
do not show, and read without it. Numbers stay as they are. (OWASP, "CSV Injection".)

A file's name need not be UTF-8. Bytes that are none, lone surrogates in Python, are written as escapes (Python's
``backslashreplace``). Rows are read with the bytes, tables with the escapes, since pandas has no place for the bytes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from sightline.run.atomic import replacing

# Also what an apostrophe stands before already, so that reading gives every text back.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NO_UTF8 = re.compile(r"\\u(dc[89a-f][0-9a-f])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def escaped(value: Any) -> Any:
    """Return a cell as it is written: text that would be taken for a formula gets an apostrophe in front."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unescaped(value: Any) -> Any:
    """Return a cell as it was before it was written."""
    if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value, 1):
        return value[1:]
    return value


def write_table(table: pd.DataFrame, path: Path, index: bool = False, float_format: str | None = None) -> None:
    """Write a table to a file that is either whole or not there.

    Args:
        table: The table.
        path: The file.
        index: Whether its index is a column too.
        float_format: How numbers are written, e.g. ``%.6g``; in full if not given.
    """
    text = pd.DataFrame({place: _each(table.iloc[:, place], escaped) for place in range(table.shape[1])})
    text.index = table.index.map(escaped) if index else table.index
    text.columns = pd.Index([escaped(name) for name in table.columns], name=table.columns.name)
    text.index.name = table.index.name
    with replacing(path) as temporary:
        text.to_csv(temporary, index=index, float_format=float_format, errors="backslashreplace")


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table that `write_table` or `write_rows` wrote; options are those of ``pandas.read_csv``."""
    table = pd.read_csv(path, **options)
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        changed = _each(column, unescaped)
        if changed is not column:
            table.isetitem(place, changed)
    table.columns = pd.Index([unescaped(name) for name in table.columns], name=table.columns.name)
    if "index_col" in options:
        table.index = pd.Index([unescaped(name) for name in table.index], name=table.index.name)
    return table


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows to a file that is either whole or not there."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        write_lines(file, [header, *rows])


def write_lines(file: TextIO, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows to an open file; there ``newline`` must be empty."""
    csv.writer(file, lineterminator="\n").writerows([escaped(cell) for cell in row] for row in rows)


def read_lines(file: Iterable[str]) -> list[list[str]]:
    """Read rows from an open file, as text."""
    return [[_bytes_of_names(unescaped(cell)) for cell in row] for row in csv.reader(file)]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows below the header, as text by column."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = read_lines(file) or [[]]
    return [dict(zip(header, row, strict=False)) for row in rows]


def _bytes_of_names(text: str) -> str:
    return _NO_UTF8.sub(lambda found: chr(int(found[1], 16)), text)


def _each(column: pd.Series, change: Any) -> pd.Series:
    """Change the text in a column; one without any is returned itself."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column
    return column.astype(object).map(change)
