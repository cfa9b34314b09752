"""The mean of the classes' accuracies, as tests, tables, curves and pages state it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def mean_class_accuracy(correct: ArrayLike, clips: ArrayLike) -> float:
    """Return the mean over the classes that occur of the share of their clips that was classified correctly.

    A class without clips has no accuracy: it is left out, whether or not it was predicted. (torchmetrics' macro average
    counts it as 0 as soon as it is predicted once.) This is the mean class accuracy that Drive&Act reports.

    Args:
        correct: Number of clips of every class that were classified correctly, (C,).
        clips: Number of clips of every class, (C,).

    Returns:
        In [0, 1]; not a number where there are no clips at all.
    """
    right, total = np.asarray(correct, dtype=float), np.asarray(clips, dtype=float)
    occurs = total > 0
    return float((right[occurs] / total[occurs]).mean()) if occurs.any() else float("nan")
