"""Making what lies in boxes unrecognisable, e.g. faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sightline.types import Box

_MARGIN = 0.1  # of the box's width or height, on each side: boxes are not drawn to the pixel
_CELLS = 3  # what is left of a box, per side


def blur_boxes(frames: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """Return frames of which only 3 x 3 mean colours are left inside the boxes, with smooth transitions.

    A frame without a box takes the boxes of the frame nearest to it that has some: what was annotated before and after
    may be there.

    Args:
        frames: uint8 (T, H, W, 3); left as it is.
        boxes: In these frames and pixels.
    """
    blurred = frames.copy()
    annotated = sorted({box.frame for box in boxes})
    for place, frame in enumerate(blurred):
        if not annotated:
            break
        nearest = min(annotated, key=lambda other: abs(other - place))
        for box in boxes:
            if box.frame == nearest:
                _blur(frame, box)
    return blurred


def _blur(frame: NDArray[np.uint8], box: Box) -> None:
    """Blur a box of a frame (H, W, 3) in place."""
    height, width = frame.shape[:2]
    across, down = _MARGIN * (box.x1 - box.x0), _MARGIN * (box.y1 - box.y0)
    left, right = max(0, int(np.floor(box.x0 - across))), min(width, int(np.ceil(box.x1 + across)))
    top, bottom = max(0, int(np.floor(box.y0 - down))), min(height, int(np.ceil(box.y1 + down)))
    if left >= right or top >= bottom:
        return
    inside = torch.from_numpy(frame[top:bottom, left:right].copy()).permute(2, 0, 1)[None].float()
    means = F.adaptive_avg_pool2d(inside, _CELLS)
    smooth = F.interpolate(means, (bottom - top, right - left), mode="bilinear", align_corners=False)
    frame[top:bottom, left:right] = smooth[0].permute(1, 2, 0).round().byte().numpy()
