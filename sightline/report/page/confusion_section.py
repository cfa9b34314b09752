"""The section on the test: accuracies and the confusion matrix of the unpruned model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sightline.report.numbers import fixed
from sightline.report.page.blocks import Column, Folded, Matrix, Missing, Section, Table
from sightline.report.stored.confusion import confusion
from sightline.report.stored.run_results import RunResults

MOST_CONFUSED = 5
MOST_CLASSES = 25
"""A larger confusion matrix is folded, and the classes that are recognised least are listed instead."""
HARDEST = 10


def confusion_section(run: RunResults) -> Section:
    """Which classes the unpruned model tells apart on the test clips, and which it mixes up."""
    section = Section(
        "test",
        "Test of the unpruned model",
        "The model before anything is cut, on clips that were used neither to train nor to choose it.",
    )
    found = confusion(run)
    if found is None:
        section.blocks.append(Missing("The model was not tested yet. Test it with", run.command("test")))
        return section
    names, counts, source = found
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    caption = (
        "Confusion matrix: each row holds the clips of one class, each column what the model took them for; the "
        f"diagonal is right. Colour is the share of the row. From {source}."
    )
    matrix = Matrix(names, counts.tolist(), shares.round(3).tolist(), caption)
    if len(names) <= MOST_CLASSES:
        section.blocks.append(matrix)
    else:
        section.blocks += [_hardest(names, counts), Folded(f"Confusion matrix of all {len(names)} classes", [matrix])]
    confused = _most_confused(names, counts, shares)
    if confused is not None:
        section.blocks.append(confused)
    return section


def _hardest(names: list[str], counts: NDArray[np.int64]) -> Table:
    """List the classes of which the smallest share is right; those without test clips are left out."""
    totals, right = counts.sum(axis=1), np.diag(counts)
    present = np.flatnonzero(totals)
    order = present[np.argsort(right[present] / totals[present], kind="stable")][:HARDEST]
    rows = [[names[i], fixed(totals[i], 0), fixed(100 * right[i] / totals[i], 1)] for i in order]
    columns = [Column("class"), Column("clips", True), Column("right %", True)]
    return Table(columns, rows, f"The {len(rows)} classes of {len(present)} that are recognised least.")


def _most_confused(names: list[str], counts: NDArray[np.int64], shares: NDArray[np.float64]) -> Table | None:
    off = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [divmod(int(place), len(counts)) for place in order if off.flat[place] > 0]
    if not pairs:
        return None
    rows = [[names[i], names[j], fixed(counts[i, j], 0), fixed(100 * shares[i, j], 1)] for i, j in pairs]
    columns = [Column("true class"), Column("taken for"), Column("clips", True), Column("% of the class", True)]
    return Table(columns, rows, "The most frequent confusions.")
