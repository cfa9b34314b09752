"""Clips as rows of frames, to look at what a model is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sightline.report.figures.style import INK, TICK_SIZE, TITLE_SIZE, new_figure, styled

WIDTH = 12.0  # inches
_GAP = 0.03  # between two frames, in their width
_TALLEST = 1.6  # inches, of a row
_CAPTION = 0.32  # inches


@styled()
def contact_sheet(clips: Sequence[NDArray[np.uint8]], captions: Sequence[str], title: str) -> Figure:
    """Draw clips under one another, the frames of each side by side, with a caption under each.

    Args:
        clips: uint8 (T, H, W, 3), RGB; at least one.
        captions: One per clip.
        title: Heading of the sheet.
    """
    if not clips or len(clips) != len(captions):
        raise ValueError(f"Expected at least one clip and a caption for each, got {len(clips)} and {len(captions)}.")
    strips = [strip(clip) for clip in clips]
    heights = [min(WIDTH * len(image) / image.shape[1], _TALLEST) for image in strips]
    figure = new_figure(WIDTH, sum(heights) + _CAPTION * (len(strips) + 1))
    figure.suptitle(title, x=0.005, ha="left", fontsize=TITLE_SIZE, fontweight="bold")
    rows = figure.subplots(len(strips), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, image, caption in zip(rows, strips, captions, strict=True):
        axes.imshow(image)
        axes.set_anchor("W")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        # A file's name may have dollar signs, which would begin a formula.
        axes.set_xlabel(caption, loc="left", fontsize=TICK_SIZE, color=INK, labelpad=2, parse_math=False)
    return figure


def strip(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put the frames (T, H, W, 3) of a clip side by side, with white gaps: (H, T W + (T - 1) gap, 3)."""
    gap = max(1, round(_GAP * clip.shape[2]))
    padded = np.pad(clip, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-gap]
