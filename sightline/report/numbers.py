"""Numbers as text, so that a column of them lines up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

NONE = "–"
"""What stands for a number that is not there."""
MOST_DECIMALS = 6


def fixed(value: Any, decimals: int) -> str:
    """Write a number with so many decimals, a real minus sign and thousands apart; a missing one as a dash."""
    return NONE if pd.isna(value) else f"{value:,.{decimals}f}".replace("-", "−")


def signed(value: Any, decimals: int) -> str:
    """Write a change with its sign."""
    return NONE if pd.isna(value) else f"{value:+,.{decimals}f}".replace("-", "−")


def decimals_for(values: Sequence[Any] | pd.Series) -> int:
    """Return how many decimals show two digits of a typical small one of ``values`` (their lower quartile)."""
    sizes = pd.Series(list(values), dtype="float64").abs()
    sizes = sizes[sizes > 0]
    if sizes.empty:
        return 1
    return min(max(1 - math.floor(math.log10(float(sizes.quantile(0.25)))), 1), MOST_DECIMALS)


def column(values: pd.Series) -> list[str]:
    """Write a column of numbers with the same, fitting number of decimals; whole ones with none."""
    numbers = pd.to_numeric(values).astype("float64")
    present = numbers.dropna()
    whole = bool((present == present.round()).all()) and (present.empty or float(present.abs().max()) >= 1)
    decimals = 0 if whole else decimals_for(present)
    return [fixed(number, decimals) for number in numbers]


def interval(low: Any, high: Any, decimals: int) -> str:
    """Write the two ends of an interval; a dash where there is none."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{fixed(low, decimals)} to {fixed(high, decimals)}"


def short(value: Any, digits: int = 3) -> str:
    """Write one number in running text with so many significant digits."""
    return NONE if pd.isna(value) else f"{value:.{digits}g}".replace("-", "−")
