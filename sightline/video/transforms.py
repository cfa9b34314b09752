"""Resizing and cutting frames: pure functions on uint8, the same for every frame of a clip.

Shapes: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def resize_short_side(frame: np.ndarray, short_side: int, antialias: bool = True) -> np.ndarray:
    """Resize one frame (H, W, 3), bilinearly, so that its shorter side has the given length; its proportions stay."""
    height, width = frame.shape[:2]
    if min(height, width) == short_side:
        return frame
    image = torch.from_numpy(frame).permute(2, 0, 1)
    return F.resize(image, [short_side], antialias=antialias).permute(1, 2, 0).contiguous().numpy()


def crop_corner(height: int, width: int, size: int, down: float = 0.5, across: float = 0.5) -> tuple[int, int]:
    """The upper left corner of a square at a relative place: 0 and 0 is at the upper left, 0.5 and 0.5 the centre.

    Places are spread evenly: with ``down`` uniform in [0, 1) every row is equally probable.
    """
    if min(height, width) < size:
        raise ValueError(f"Expected a frame of at least {size}x{size}, got {width}x{height} (width x height).")
    return int(down * (height - size + 1)), int(across * (width - size + 1))


def view_corners(height: int, width: int, size: int, views: int) -> list[tuple[int, int]]:
    """The upper left corners of 1 square (the centre) or 3: both ends of the longer side and the centre between."""
    top, left = crop_corner(height, width, size)
    if views == 1:
        return [(top, left)]
    if height > width:
        return [(0, left), (top, left), (height - size, left)]
    return [(top, 0), (top, left), (top, width - size)]


def crop(clip: Tensor, corner: tuple[int, int], size: int) -> Tensor:
    """Cut the square with this upper left corner out of every frame: (T, H, W, 3) -> (T, size, size, 3)."""
    top, left = corner
    return clip[:, top : top + size, left : left + size]


def channels_first(clip: Tensor) -> Tensor:
    """(T, H, W, 3) -> (3, T, H, W), the layout of models, in memory of its own."""
    return clip.permute(3, 0, 1, 2).contiguous()


def cut_square(clip: Tensor, size: int, down: float = 0.5, across: float = 0.5) -> Tensor:
    """Cut a square at a relative place, see `crop_corner`: (T, H, W, 3) -> (3, T, size, size)."""
    corner = crop_corner(clip.shape[1], clip.shape[2], size, down, across)
    return channels_first(crop(clip, corner, size))
