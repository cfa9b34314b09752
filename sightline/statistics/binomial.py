"""The interval of a share of clips."""

from __future__ import annotations

from scipy.stats import binomtest


def accuracy_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of an accuracy, in percent.

    Unlike the normal approximation it stays within 0 and 100 and has a width also where all or none are correct
    (Wilson 1927).

    Args:
        correct: Number of clips that were classified correctly.
        total: Number of clips.
        confidence: Share of such intervals that hold the true accuracy.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"An accuracy needs 0 <= correct <= total and total > 0; got {correct} of {total}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is between 0 and 1, e.g. 0.95; got {confidence}.")
    low, high = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return 100 * float(low), 100 * float(high)
