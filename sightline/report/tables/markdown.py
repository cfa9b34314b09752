"""Tables as GitHub-flavoured Markdown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pandas as pd


def markdown_table(frame: pd.DataFrame, columns: Mapping[str, Callable[[Any], str]], numeric: Collection[str]) -> str:
    """Lay a data frame out, one line per row.

    Args:
        frame: The rows.
        columns: Heading of every column, and what its cell says of a row (a named tuple).
        numeric: Headings of the columns that are aligned to the right.
    """
    lines = [list(columns), ["---:" if name in numeric else "---" for name in columns]]
    lines += [[cell(row).replace("|", "\\|") for cell in columns.values()] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
