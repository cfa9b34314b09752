"""Whether a map shows what is bright: by correlation, and with a bright spot painted in where nothing happens.

A map may well lie on bright things because they matter. So its correlation with luminance stands beside that with the
boxes of what is to be seen; and a spot that changes the prediction by nothing must not draw the map to itself.

Shapes: B clips, (T, H, W) tubelets, M their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.explain.attribution.tubelets import as_pixels
from sightline.explain.methods.controls import cell_means, luminance


@dataclass(frozen=True)
class Spots:
    """Clips with a bright spot each.

    Attributes:
        clips: The clips with it, float in [0, 1].
        places: Place (row times columns plus column) of the spot on the grid, int64 (B,).
        found: Whether a clip has a place for it, bool (B,); it is unchanged otherwise.
    """

    clips: Tensor
    places: Tensor
    found: Tensor


def with_spots(clips: Tensor, grid: tuple[int, int, int], taken: Tensor) -> Spots:
    """Paint a white tubelet into all frames, at the place that moves least among those where nothing is.

    Args:
        clips: (B, 3, T, H, W), uint8 or float in [0, 1].
        grid: Tubelets of a clip.
        taken: Places at which something is in any frame, bool (B, H, W) of the grid; none of these is painted, nor one
            that is brighter than the rest of the clip on average.
    """
    pixels = as_pixels(clips).clone()
    _, h, w = grid
    grey = luminance(clips)
    bright = cell_means(grey, grid).mean(dim=1)
    moves = torch.zeros_like(bright)
    if grey.shape[1] > 1:
        moves = cell_means(grey.diff(dim=1).abs(), (1, h, w))[:, 0]
    free = ~taken & (bright <= bright.mean(dim=(1, 2), keepdim=True))
    places = moves.masked_fill(~free, torch.inf).flatten(1).argmin(dim=1)
    found = free.flatten(1).any(dim=1)
    height, width = pixels.shape[3] // h, pixels.shape[4] // w
    for clip, (place, there) in enumerate(zip(places.tolist(), found.tolist(), strict=True)):
        if there:
            y, x = place // w * height, place % w * width
            pixels[clip, :, :, y : y + height, x : x + width] = 1.0
    return Spots(pixels, places, found)


def mass_at(values: Tensor, places: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return the share of each map (B, M), what is below 0 left out, that lies at one place over all frames, (B,)."""
    positive = values.double().clamp(min=0).unflatten(1, (grid[0], grid[1] * grid[2]))
    inside = positive.sum(dim=1).gather(1, places.unsqueeze(1)).squeeze(1)
    return inside / positive.sum(dim=(1, 2))


def rank_at(values: Tensor, places: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return which share of all places a map (B, M), summed over time, has at most as high as one, (B,); ties half."""
    by_place = values.double().unflatten(1, (grid[0], grid[1] * grid[2])).sum(dim=1)
    own = by_place.gather(1, places.unsqueeze(1))
    others = by_place.shape[1] - 1
    below = (by_place < own).sum(dim=1) + 0.5 * ((by_place == own).sum(dim=1) - 1)
    return below / max(others, 1)
