"""The parts of a clip that attributions are scored on, and clips of which some parts are gone.

A *tubelet* is a box of pixels and frames. Perturbing methods ask about tubelets, and every metric removes tubelets, the
same ones for all methods of a backbone, however fine their maps are: those of the embedding's grid, of which rows and
columns are joined in twos until there are 14 at most. A model of 224 pixels so has 14x14 a frame, whatever its family.

What stands in the place of a removed tubelet (the base):

- ``blur``: the clip, blurred in space by a Gaussian of an eighth of the frame's width. Motion stays, looks go.
- ``freeze``: the same place in the last frame before it that is kept; where there is none, in the clip's first frame.
  Looks stay, motion goes. A clip of which all is removed is its first frame, standing still.

Shapes: B clips, (T, H, W) tubelets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from sightline.backbones import Backbone
from sightline.explain.cell_map import CellMap

BASES = ("blur", "freeze")
MOST_ROWS = 14


def tubelet_grid(backbone: Backbone) -> tuple[int, int, int]:
    """Return how many tubelets (T, H, W) a backbone's clips are divided into."""
    spec = backbone.input_spec
    probe = torch.zeros(1, 3, spec.frames, spec.height, spec.width, device=next(backbone.parameters()).device)
    with torch.no_grad():
        t, h, w = backbone.embed(probe).grid
    while h > MOST_ROWS and h % 2 == 0:
        h //= 2
    while w > MOST_ROWS and w % 2 == 0:
        w //= 2
    return t, h, w


def tubelet_ids(grid: tuple[int, int, int], backbone: Backbone) -> Tensor:
    """Return the tubelet, row-major, that every pixel of a clip lies in, int64 (T, H, W) of the clip."""
    spec = backbone.input_spec
    number = torch.arange(grid[0] * grid[1] * grid[2], dtype=torch.float64).view(1, *grid)
    cell = tuple(-(-size // cells) for size, cells in zip((spec.frames, spec.height, spec.width), grid, strict=True))
    return CellMap(number, (cell[0], cell[1], cell[2]), spec).pixels()[0].long()


def blurred(clips: Tensor) -> Tensor:
    """Return clips (B, 3, T, H, W), uint8 or float in [0, 1], blurred beyond recognition, float in [0, 1]."""
    pixels = as_pixels(clips)
    sigma = max(pixels.shape[-1] / 8, 1.0)
    # As wide as a frame of this size can be padded by reflection.
    size = min(2 * round(2 * sigma) + 1, 2 * (min(pixels.shape[-2:]) // 2) - 1)
    return gaussian_blur(pixels.transpose(1, 2).contiguous(), [size, size], [sigma, sigma]).transpose(1, 2)


def base_clips(clips: Tensor, base: str) -> Tensor:
    """Return the clips of which every tubelet is gone, float in [0, 1]."""
    check_base(base)
    return blurred(clips) if base == "blur" else as_pixels(clips)[:, :, :1].expand_as(clips).clone()


def as_pixels(clips: Tensor) -> Tensor:
    """Return clips as float in [0, 1]."""
    return clips.float() / 255 if clips.dtype == torch.uint8 else clips


def check_base(base: str) -> None:
    """Raise ValueError unless a base is known."""
    if base not in BASES:
        raise ValueError(f"base must be {' or '.join(map(repr, BASES))}, got {base!r}.")


def with_tubelets(clips: Tensor, kept: Tensor, ids: Tensor, base: str) -> Tensor:
    """Return clips of which only some tubelets are left, float in [0, 1].

    Args:
        clips: (B, 3, T, H, W), uint8 or float in [0, 1]; or one clip, of which B variants are made.
        kept: Which tubelets stay, bool (B, M).
        ids: Tubelet of every pixel, see `tubelet_ids`.
        base: What stands in the place of the others.

    Raises:
        ValueError: If the base is unknown.
    """
    check_base(base)
    pixels = as_pixels(clips)
    stays = kept[:, ids.to(kept.device)].unsqueeze(1)  # (B, 1, T, H, W)
    if base == "blur":
        return torch.where(stays, pixels, blurred(clips))
    frames = torch.arange(pixels.shape[2], device=pixels.device).view(1, 1, -1, 1, 1)
    last = torch.where(stays, frames, 0).cummax(dim=2).values
    pixels = pixels.expand(len(kept), -1, -1, -1, -1)
    return pixels.gather(2, last.expand_as(pixels))
