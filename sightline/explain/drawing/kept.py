"""What a token reduction kept, drawn over the frames: kept cells as they are, dropped ones in dark blue.

Lines part the cells, so that the grid is to be seen. Cells whose patches were merged into one token are tinted in one
colour and not parted from one another.

Shapes: T frames of H x W pixels, (t, h, w) cells of a grid.
"""

from __future__ import annotations

from math import prod

import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from torch import Tensor

_DROPPED = np.array([22, 38, 92], dtype=np.float32)
"""Colour of a dropped cell, which night and infrared clips do not have; black would be taken for what is dark."""
_LEFT = 0.3
"""Share of its brightness that a dropped cell adds to that: enough to make out what was in it."""
_LINE, _EDGE = 0.3, 0.75
"""Share of a line in the pixels that it covers: between two cells alike, and between a kept and a dropped one."""
_TINT = 0.45
_PURPLE, _BLUES = 0.78, 0.25
"""Where tokens' colours begin on the colour circle, and how much of it, before that, is left to what is dropped."""
_TURN = 0.618034
"""Of the colour circle from one token's colour to the next one's: the golden section gives neighbours other hues."""


def kept_overlay(
    frames: NDArray[np.uint8], token_of: Tensor, cell: tuple[int, int, int], times: int = 1
) -> NDArray[np.uint8]:
    """Draw what goes on, uint8 (T, H * times, W * times, 3).

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        token_of: Cell of the token that each cell's patch is part of, int64 (t, h, w): its own where nothing was merged
            into another; negative where it was dropped.
        cell: Frames, rows and columns that a cell covers; the last cells may reach beyond the clip.
        times: How many times larger than the frames, a whole number: lines are one pixel wide.

    Raises:
        ValueError: If the cells do not cover the frames.
    """
    reach = tuple(cells * size for cells, size in zip(token_of.shape, cell, strict=True))
    if any(covered < size for covered, size in zip(reach, frames.shape[:3], strict=True)):
        raise ValueError(f"Expected cells that cover all of {frames.shape[:3]} (T, H, W), got cells up to {reach}.")
    tokens = token_of.cpu().numpy()
    own = np.arange(prod(tokens.shape)).reshape(tokens.shape)
    # A dropped cell is a region by itself, and no token's number.
    region, kept = np.where(tokens < 0, own, tokens), tokens >= 0
    merged = kept & (np.bincount(region[kept], minlength=own.size)[region] > 1)

    def on_pixels(values: NDArray) -> NDArray:
        for axis, (size, each) in enumerate(zip(frames.shape[:3], cell, strict=True)):
            scale = times if axis else 1
            values = values.take(np.arange(size * scale) // (each * scale), axis=axis)
        return values

    drawn = frames.repeat(times, axis=1).repeat(times, axis=2).astype(np.float32)
    grey = drawn @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma, ITU-R BT.601
    there, where = on_pixels(kept)[..., None], on_pixels(region)
    drawn = np.where(there, drawn, _DROPPED * (1 - _LEFT) + _LEFT * grey[..., None])
    if merged.any():
        hues = (_PURPLE + (1 - _BLUES) * (where * _TURN % 1)) % 1
        colours = 255 * hsv_to_rgb(np.stack([hues, np.full_like(hues, 0.85), np.full_like(hues, 0.95)], axis=-1))
        drawn = np.where(on_pixels(merged)[..., None], (1 - _TINT) * drawn + _TINT * colours, drawn)
    _part(drawn, where, there[..., 0])
    return np.rint(drawn).astype(np.uint8)


def _part(drawn: NDArray[np.float32], region: NDArray, there: NDArray[np.bool_]) -> None:
    """Draw lines between regions (T, H, W), in place, on the lower or right one of two."""
    for axis in (1, 2):
        last, first = np.arange(region.shape[axis] - 1), np.arange(1, region.shape[axis])
        parted = region.take(first, axis) != region.take(last, axis)
        edge = there.take(first, axis) != there.take(last, axis)
        line = np.where(edge, _EDGE, np.where(parted, _LINE, 0))[..., None]
        index = (slice(None), first) if axis == 1 else (slice(None), slice(None), first)
        drawn[index] = (1 - line) * drawn[index] + line * np.where(edge[..., None], 255, 128)
