"""One look for all figures: fonts, sizes, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008), without its yellow, which vanishes on white.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)

INK = "#222222"
MUTED = "#5F5F5F"
RULE = "#D9D9D9"
BAND = "#F3F3F3"
PAPER = "#FFFFFF"
FILL = 0.72
"""How much lighter than its edge a box is filled."""
COUNTS = "Blues"
"""Colour map of the confusion matrix: sequential, light at zero."""

TITLE_SIZE, LABEL_SIZE, TICK_SIZE, NOTE_SIZE = 11.0, 9.5, 8.5, 7.5
DPI = 200

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": LABEL_SIZE,
    "figure.facecolor": PAPER,
    "figure.dpi": DPI,
    "savefig.facecolor": PAPER,
    "savefig.dpi": DPI,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": TICK_SIZE,
    "lines.solid_capstyle": "butt",
    # Text stays text: smaller files that can be searched and edited. The salt makes equal figures equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "sightline",
}


def styled() -> Any:
    """The style as a context manager or decorator; matplotlib's global settings are restored afterwards."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches that pyplot does not know of, so nothing has to be closed."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish_axes(axes: Axes, grid: str = "y") -> None:
    """Give axes the ticks and grid of the style.

    Ticks are made when the figure is drawn, possibly outside of `styled`; therefore their look is set on the axes.
    """
    axes.tick_params(labelsize=TICK_SIZE, colors=MUTED, labelcolor=INK, width=0.7, length=3)
    axes.grid(True, axis=grid, color=RULE, linewidth=0.6)  # type: ignore[arg-type]


def set_titles(axes: Axes, title: str, notes: Sequence[str] = (), lift: float = 0) -> None:
    """Put a bold title, and small grey notes under it, above the axes.

    Args:
        axes: What to title.
        title: Heading.
        notes: Each starts a new line; wrapped to the figure's width.
        lift: Room to leave between axes and notes, in points.
    """
    # The average letter of the style's font is 0.55 times as wide as the font is high; 0.9 inches are margins.
    letters = int((axes.get_figure(root=True).get_figwidth() - 0.9) * 72 / (NOTE_SIZE * 0.55))  # type: ignore[union-attr]
    lines = [line for note in notes for line in textwrap.wrap(note, letters)]
    offset = 6.0 + lift
    if lines:
        text = axes.annotate(
            "\n".join(lines), (0, 1), (0, offset), xycoords="axes fraction", textcoords="offset points",
            fontsize=NOTE_SIZE, color=MUTED, va="bottom", linespacing=1.25, gid="notes",
        )  # fmt: skip
        # The title's padding reserves the height; in the layout the text would push the axes aside.
        text.set_in_layout(False)
        offset += len(lines) * NOTE_SIZE * 1.3 + 4
    axes.set_title(title, loc="left", fontsize=TITLE_SIZE, fontweight="bold", pad=offset)


def lighter(colour: str, share: float) -> tuple[float, float, float]:
    """Mix a colour with white; ``share`` 0 leaves it as it is and 1 gives white."""
    red, green, blue = (channel + (1 - channel) * share for channel in to_rgb(colour))
    return red, green, blue


def ink_on(background: Sequence[float]) -> str:
    """Black or white, whichever has the higher contrast on an RGB colour (WCAG relative luminance)."""
    channels = np.asarray(background[:3], dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return INK if luminance > 0.179 else PAPER
