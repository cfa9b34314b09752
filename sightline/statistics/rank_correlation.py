"""Spearman's rank correlation, of many rows at once."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import ConstantInputWarning, pearsonr, rankdata

from sightline.statistics.matrix import Floats


def spearman(a: Floats, b: Floats) -> Floats:
    """Return Spearman's correlation of every row of ``a`` with that of ``b``, both (..., U); ties share their rank.

    `scipy.stats.spearmanr` takes rows two by two only, so it is written as what it is: Pearson's of the ranks.

    Returns:
        (...); not a number where all values of a row are equal, or where there is one alone.
    """
    if a.shape[-1] < 2:
        return np.full(a.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return pearsonr(rankdata(a, axis=-1), rankdata(b, axis=-1), axis=-1).statistic
