"""STAA: where the last layer looks in each frame, and when, in one forward pass.

Source: Wang and Liu, "STAA: Spatio-Temporal Attention Attribution for Real-Time Interpreting Transformer-based Video
Models", 2024 (arXiv 2411.00630): attention of the last layer, mean over heads; a spatial map for every frame and the
importance of every frame. *Enhanced*: in every frame, what lies below mu + lambda sigma of that frame is set to zero;
a blur and smoothing over three frames then steady the map.

What the paper leaves open, and how it is done here:

- Queries are those that the classifier reads: the class token, else the mean of all. Where a layer attends in time and
  in space by turns (divided TimeSformer), space is from the spatial site and time is what each frame receives at the
  temporal one; elsewhere a frame's importance is the sum of its cells.
- The map is the share of each cell within its frame times its frame's importance; with one site that is the attention.
- lambda has no printed value; 0 keeps what is above the mean.
- The blur is a Gaussian of one cell's deviation on the grid of cells; smoothing is the mean over the frames within the
  window, at a clip's ends over those that exist.
- ``threshold: percentile`` is the rule of the authors' notebooks, which differ from the paper: blur first, zero below
  the 70th percentile of the frame, scale to 0..1, and blend .7 with .3 of the frame before. Theirs blurs 7 pixels,
  less than half a cell of theirs; here the blur is the same as above.

Shapes: B clips, (T, H, W) cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.layer_attention import LayerMethod
from sightline.explain.methods.site_maps import layer_at, mean_map, observed_sites, space_and_time

THRESHOLDS = ("deviation", "percentile")
PERCENTILE = 0.7
"""Share of a frame's cells that lie below the notebooks' threshold."""
NEW_FRAME = 0.7
"""Weight of a frame in the notebooks' blend with the one before."""


@dataclass(frozen=True)
class STAA(LayerMethod):
    """Spatio-temporal attention attribution.

    Attributes:
        enhanced: Whether the map is thresholded and steadied; otherwise it is the attention itself.
        threshold: ``deviation``: the paper's mu + lambda sigma; ``percentile``: the notebooks'.
        lam: The paper's lambda.
        window: How many frames of cells smoothing averages, an odd number; 1 smooths nothing.
    """

    name: ClassVar[str] = "staa"
    enhanced: bool = True
    threshold: str = "deviation"
    lam: float = 0.0
    window: int = 3

    def __post_init__(self) -> None:
        if self.threshold not in THRESHOLDS:
            raise ValueError(f"The threshold of STAA is {' or '.join(THRESHOLDS)}, got {self.threshold!r}.")
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"The window of STAA is an odd number of frames, got {self.window}.")

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        seen = observed_sites(backbone, clips, layer_at(backbone, self.layer))
        cells, time = space_and_time([mean_map(backbone, site) for site in seen.values()])
        if self.enhanced:
            values = cells.values
            if self.threshold == "deviation":
                values = smoothed(blurred_cells(above_deviation(values, self.lam)), self.window)
            else:
                values = blended(above_percentile(blurred_cells(values)))
            cells = CellMap(values, cells.cell, cells.clip)
        return Attribution(cells, time, self.passes(backbone))


def above_deviation(values: Tensor, lam: float) -> Tensor:
    """Zero what lies below mean + lambda standard deviations (of the population) of its frame, (B, T, H, W)."""
    mean = values.mean(dim=(2, 3), keepdim=True)
    deviation = values.std(dim=(2, 3), keepdim=True, correction=0)
    return torch.where(values >= mean + lam * deviation, values, 0.0)


def above_percentile(values: Tensor) -> Tensor:
    """Zero what lies below the 70th percentile of its frame, and scale every frame to 0..1, (B, T, H, W)."""
    limit = values.flatten(2).quantile(PERCENTILE, dim=2)[:, :, None, None]
    kept = torch.where(values >= limit, values, 0.0)
    low, high = kept.amin(dim=(2, 3), keepdim=True), kept.amax(dim=(2, 3), keepdim=True)
    return (kept - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def blurred_cells(values: Tensor) -> Tensor:
    """Blur every frame by a Gaussian of one cell's deviation over 3x3 cells; edges are repeated, (B, T, H, W)."""
    line = torch.exp(-0.5 * torch.tensor([-1.0, 0.0, 1.0], device=values.device) ** 2)
    kernel = (line[:, None] * line[None]) / line.sum() ** 2
    padded = F.pad(values.flatten(0, 1).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel[None, None]).view_as(values)


def smoothed(values: Tensor, window: int) -> Tensor:
    """Average every cell over the frames within a window around its own, (B, T, H, W)."""
    reach = window // 2
    sums = F.pad(values.cumsum(dim=1), (0, 0, 0, 0, 1, 0))
    frames = values.shape[1]
    place = torch.arange(frames, device=values.device)
    first, end = (place - reach).clamp(min=0), (place + reach + 1).clamp(max=frames)
    return (sums[:, end] - sums[:, first]) / (end - first).view(1, -1, 1, 1)


def blended(values: Tensor) -> Tensor:
    """Blend every frame with what came out for the one before, .7 to .3, (B, T, H, W)."""
    found = [values[:, 0]]
    for frame in values.unbind(dim=1)[1:]:
        found.append(NEW_FRAME * frame + (1 - NEW_FRAME) * found[-1])
    return torch.stack(found, dim=1)
