"""Where boxes stand and how far their axis reaches: shared by the drawn and the interactive box plots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

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
