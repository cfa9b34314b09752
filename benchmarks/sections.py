"""What a table of a page is made of, see `benchmarks.write_results`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.result_files import Records


@dataclass(frozen=True)
class Section:
    """How a table of a page is made.

    Attributes:
        columns: Heading -> format of Python's for a row; a cell of which a value is missing stays empty.
        rows: What rows of the file are shown, all of its main table if not given.
        timed: Whether it shows times, which other work on the machine makes longer; that is then told.
    """

    columns: Mapping[str, str]
    rows: Callable[[dict[str, Any]], Records] = lambda content: content["rows"]
    timed: bool = False


def side_by_side(
    rows: Records, name: Callable[[dict[str, Any]], str], *values: str, by: tuple[str, ...] = ("backbone", "k")
) -> Records:
    """Put the rows of one model and depth into one, with the values of each under the name of its method."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    nothing = {f"{name(row)} {value}": None for row in rows for value in values}
    for row in rows:
        one = found.setdefault(tuple(row[key] for key in by), {**row, **nothing})
        one |= {f"{name(row)} {value}": row[value] for value in values}
    return list(found.values())
