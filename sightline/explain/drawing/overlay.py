"""Maps drawn over the frames that they belong to, as images and as MP4. Returns frames, logs nothing.

Shapes: T frames of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

COLOR_MAP = "viridis"


def color_range(maps: Iterable[Tensor]) -> tuple[float, float]:
    """Return the colour scale that several maps can share: from 0, or the lowest value if negative, to the highest."""
    lowest, highest = zip(*((float(m.min()), float(m.max())) for m in maps), strict=True)
    return min(0.0, *lowest), max(highest)


def overlay(
    frames: NDArray[np.uint8], attention: Tensor, limits: tuple[float, float] | None = None, opacity: float = 0.55
) -> NDArray[np.uint8]:
    """Blend a map in viridis over grey frames, uint8 (T, H, W, 3).

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        attention: (T, H, W), as `CellMap.pixels` gives it for one clip.
        limits: Values at the two ends of the colour scale; by default `color_range` of this map, over all its frames.
            Give the same to several maps to make their colours comparable.
        opacity: Share of the colour; the rest is the frame, without its own colours, which viridis would mix with.

    Raises:
        ValueError: If map and frames have other sizes, or the opacity is no share.
    """
    if tuple(attention.shape) != frames.shape[:3]:
        raise ValueError(
            f"The map must have the frames' sizes {frames.shape[:3]} (T, H, W), got {tuple(attention.shape)}."
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie between 0 and 1, got {opacity}.")
    low, high = limits or color_range([attention])
    values = attention.detach().float().cpu().numpy()
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colours = colormaps[COLOR_MAP](scaled, bytes=True)[..., :3]
    grey = frames @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma, ITU-R BT.601
    blended = opacity * colours.astype(np.float32) + (1 - opacity) * grey[..., None]
    return np.rint(blended).astype(np.uint8)


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Write frames (T, H, W, 3) as H.264 that browsers play.

    Players want even sizes, so an odd height or width is made even by repeating the last row or column.

    Raises:
        ValueError: If there is no frame, or ``fps`` is not positive.
    """
    if not len(frames) or fps <= 0:
        raise ValueError(f"A video takes at least one frame and a positive rate, got {len(frames)} and {fps}.")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
