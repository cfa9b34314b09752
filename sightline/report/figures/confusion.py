"""The confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sightline.report.figures.style import COUNTS, MUTED, PAPER, RULE, TICK_SIZE, ink_on, new_figure, set_titles, styled
from sightline.statistics.class_accuracy import mean_class_accuracy

MOST_COUNTS = 25
"""With more classes the counts would be too small to read; the colours stay."""
LONGEST_NAME = 29


@styled()
def confusion_figure(
    matrix: NDArray[np.generic], class_names: Sequence[str], title: str = "Confusion matrix"
) -> Figure:
    """Draw a confusion matrix: colours are shares of the true class, numbers are clips.

    Args:
        matrix: Counts (C, C); rows are true classes, columns predictions.
        class_names: C names.
        title: Heading of the figure.
    """
    counts = _check(matrix, class_names)
    classes, totals = len(counts), counts.sum(axis=1)
    shares = np.divide(counts, totals[:, None], out=np.full(counts.shape, np.nan), where=totals[:, None] > 0)
    cell = float(np.interp(classes, (2, 9, 25, 101), (0.8, 0.55, 0.4, 0.135)))
    size = min(TICK_SIZE, cell * 72 * 0.8)
    label = max(len(_shortened(name)) for name in class_names) * size * 0.6 / 72
    slant = 1.0 if classes > MOST_COUNTS else 0.75
    figure = new_figure(cell * classes + label + 2.0, cell * classes + label * slant + 1.3)
    axes = figure.add_subplot()
    colours = matplotlib.colormaps[COUNTS].with_extremes(bad=PAPER)
    # Where no count is written, a confusion of a few percent must still be seen.
    norm = PowerNorm(1.0 if classes <= MOST_COUNTS else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap=colours, norm=norm, aspect="equal")
    if classes <= MOST_COUNTS:
        _write_counts(axes, counts, shares, norm, min(TICK_SIZE, cell * 72 / 3.2))
    _label(axes, class_names, totals, size)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("Share of the true class")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=TICK_SIZE, color=MUTED)
    set_titles(axes, title, [_summary(counts, totals)])
    return figure


def _check(matrix: NDArray[np.generic], class_names: Sequence[str]) -> NDArray[np.float64]:
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) == 0:
        raise ValueError(f"A confusion matrix is square, (C, C) with C classes; got the shape {counts.shape}.")
    if len(class_names) != len(counts):
        raise ValueError(
            f"Each of the {len(counts)} classes of the matrix needs one name; got {len(class_names)} names. "
            "Pass the class names in the order of the logits."
        )
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.round(counts)).any():
        raise ValueError("A confusion matrix holds counts (whole numbers >= 0); this one does not. Was it normalised?")
    if not counts.any():
        raise ValueError("The confusion matrix is empty: no clip was tested, so there is nothing to draw.")
    return counts


def _write_counts(
    axes: Axes, counts: NDArray[np.float64], shares: NDArray[np.float64], norm: Normalize, size: float
) -> None:
    colours = matplotlib.colormaps[COUNTS]
    for row, column in np.argwhere(counts > 0):
        colour = ink_on(colours(float(norm(shares[row, column]))))
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=size, color=colour)


def _label(axes: Axes, class_names: Sequence[str], totals: NDArray[np.float64], size: float) -> None:
    places = np.arange(len(class_names))
    names = [_shortened(name) for name in class_names]
    counted = [f"{name} ({total:.0f})" for name, total in zip(names, totals, strict=True)]
    # Slanted names of many classes would run into each other.
    steep = len(names) > MOST_COUNTS
    if steep:
        axes.set_xticks(places, names, rotation=90)
    else:
        axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, counted)
    axes.tick_params(labelsize=size, length=0, pad=2)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class (clips)")
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(True, which="minor", color=RULE, linewidth=0.5 if not steep else 0.25)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set(visible=True, color=RULE)


def _shortened(name: str) -> str:
    """Cut the middle out of a long name: names of actions differ at either end."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _summary(counts: NDArray[np.float64], totals: NDArray[np.float64]) -> str:
    top1 = 100 * np.trace(counts) / totals.sum()
    mean_class = 100 * mean_class_accuracy(np.diag(counts), totals)
    absent = int((totals == 0).sum())
    missing = f"; classes without a clip: {absent} of {len(counts)}" if absent else ""
    return f"{totals.sum():,.0f} clips, top-1 {top1:.1f} %, mean over classes {mean_class:.1f} %{missing}"
