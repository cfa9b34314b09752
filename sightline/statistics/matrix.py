"""Values of units on samples as one array, the form that resampling and comparing units need.

Shapes: U units, N samples, G groups (or classes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreMatrix:
    """The scores of units on samples.

    Attributes:
        units: One row per unit: layer, site ("" of a layer), head (missing of a layer); sorted, so that ties go to the
            lower row.
        values: (U, N); not a number where a unit was not evaluated on a sample (in a raced table).
        label: Class of every sample, (N,).
        group: Subject of every sample, (N,).
    """

    units: pd.DataFrame
    values: Floats
    label: NDArray[np.int64]
    group: NDArray[np.object_]

    @property
    def complete(self) -> bool:
        """Whether every unit was evaluated on every sample."""
        return not bool(np.isnan(self.values).any())

    @property
    def means(self) -> Floats:
        """Mean score of every unit over the samples it was evaluated on, (U,)."""
        return np.nanmean(self.values, axis=1)

    def subset(self, wanted: NDArray[np.bool_]) -> ScoreMatrix:
        """Return the matrix of some of the units, (U,) true where wanted."""
        return ScoreMatrix(self.units[wanted].reset_index(drop=True), self.values[wanted], self.label, self.group)

    def sums_by(self, codes: NDArray[np.int64], count: int) -> tuple[Floats, Floats]:
        """Add up the scores, and count the samples, of every unit in every group.

        Args:
            codes: Group of every sample, 0..count-1, (N,).
            count: Number of groups.

        Returns:
            Sums and counts, both (U, G).
        """
        member = np.zeros((len(codes), count))
        member[np.arange(len(codes)), codes] = 1.0
        seen = ~np.isnan(self.values)
        return np.where(seen, self.values, 0.0) @ member, seen.astype(float) @ member
