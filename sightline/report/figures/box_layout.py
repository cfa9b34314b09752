"""Where boxes stand and how far their axis reaches: shared by the drawn and the interactive box plots."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

SITE_GAP = 0.8
"""Space between the sites of a layer, in boxes."""
LAYER_GAP = 1.4
"""Space between layers, in boxes."""
HEADROOM = 1.12
"""How far a linear axis reaches beyond the highest whisker or mean."""
STRETCH = 1.6
"""Outliers are shown in full where that makes the axis at most this much longer."""

FLAT = 0.04
"""A box that ends below this share of a linear axis is too flat to be read."""
LINEAR_PART = 0.6
"""Height of the linear part of a symmetric-logarithmic axis, in decades."""
AxisScale = Literal["auto", "linear", "symlog"]


@dataclass(frozen=True)
class BoxAxis:
    """The vertical axis of a box plot: from 0, linear, or logarithmic but for a linear part near 0.

    Attributes:
        top: The highest value that it shows.
        threshold: Where it turns linear; None where all of it is.
    """

    top: float
    threshold: float | None = None

    def heights(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return where values that are not negative stand, for what draws no such axis; as matplotlib's symlog."""
        v = np.asarray(values, dtype=float)
        if self.threshold is None:
            return v
        linear = LINEAR_PART / (1 - 1 / 10)
        above = linear + np.log10(np.maximum(v, self.threshold) / self.threshold)
        return np.where(v <= self.threshold, v * linear, self.threshold * above)

    def ticks(self) -> list[float]:
        """Return the values that a logarithmic axis names: 0 and the powers of ten that it shows."""
        if self.threshold is None:
            return []
        return [
            0.0,
            *(self.threshold * 10.0**power for power in range(int(math.log10(self.top / self.threshold) + 1e-9) + 1)),
        ]


@dataclass(frozen=True)
class LayerSpan:
    """The stretch of the x axis that a layer's heads take."""

    layer: int
    left: float
    right: float

    @property
    def centre(self) -> float:
        return (self.left + self.right) / 2


def place_boxes(statistics: pd.DataFrame) -> pd.DataFrame:
    """Add a column ``x``: heads side by side, a gap between sites and a wider one between layers."""
    positions, x = [], 0.0
    previous: tuple[int, str] | None = None
    for layer, site in zip(statistics["layer"], statistics["site"], strict=True):
        if previous is not None:
            x += 1 + (LAYER_GAP if layer != previous[0] else SITE_GAP if site != previous[1] else 0)
        positions.append(x)
        previous = (layer, site)
    return statistics.assign(x=positions)


def layer_spans(placed: pd.DataFrame) -> list[LayerSpan]:
    """Return the span of every layer, left to right; neighbouring spans touch in the middle of the gap."""
    margin = (1 + LAYER_GAP) / 2
    extent = placed.groupby("layer", sort=False)["x"].agg(["min", "max"])
    return [
        LayerSpan(int(layer), float(low) - margin, float(high) + margin)
        for layer, low, high in zip(extent.index, extent["min"], extent["max"], strict=True)
    ]


def split_rows(spans: list[LayerSpan], capacity: float) -> list[list[LayerSpan]]:
    """Break the layers into as few rows as ``capacity`` (in boxes) asks for, and make the rows about equally long."""
    total = sum(span.right - span.left for span in spans)
    count = max(1, math.ceil(total / capacity))
    limit = total / count
    # One layer per row always satisfies the count, if it is allowed to; widening by a box at a time ends there at last.
    while len(rows := _fill(spans, limit)) > count:
        limit += 1
    return rows


def _fill(spans: list[LayerSpan], limit: float) -> list[list[LayerSpan]]:
    rows: list[list[LayerSpan]] = []
    for span in spans:
        if rows and span.right - rows[-1][0].left <= limit:
            rows[-1].append(span)
        else:
            rows.append([span])
    return rows


def linear_top(statistics: pd.DataFrame) -> float:
    """Upper end of a linear axis: the whiskers decide, so that a few outliers do not flatten the boxes."""
    highest = float(statistics["max"].max())
    if highest <= 0:
        return 1e-3
    top = HEADROOM * float(max(statistics["whisker_high"].max(), statistics["mean"].max()))
    return highest * 1.04 if highest <= STRETCH * top else top


def is_squashed(statistics: pd.DataFrame) -> bool:
    """Whether a linear axis would press most boxes flat, because few units score far higher than the others."""
    return float(statistics["q75"].median()) < FLAT * linear_top(statistics)


def symlog_threshold(statistics: pd.DataFrame) -> float:
    """Where a symmetric-logarithmic axis turns linear: a power of ten below nine in ten of the positive medians."""
    medians = statistics.loc[statistics["median"] > 0, "median"]
    small = float(medians.quantile(0.1)) if len(medians) else 1e-3
    return 10.0 ** min(max(math.floor(math.log10(small)), -5), -1)


def box_axis(statistics: pd.DataFrame, scale: AxisScale) -> BoxAxis:
    """Choose the axis of a box plot; the drawn and the interactive one have the same.

    Args:
        statistics: What the boxes show.
        scale: ``linear`` from 0 to the highest whisker, ``symlog`` to compare very small with large scores, or
            ``auto``: linear unless that would press most boxes flat.
    """
    if scale not in get_args(AxisScale):
        raise ValueError(f"scale must be one of {', '.join(get_args(AxisScale))}; got {scale!r}.")
    if scale == "linear" or (scale == "auto" and not is_squashed(statistics)):
        return BoxAxis(linear_top(statistics))
    threshold = symlog_threshold(statistics)
    return BoxAxis(max(float(statistics["max"].max()) * 1.3, 10 * threshold), threshold)
