"""What a model sees of a video: which frames, how large, and which square of them.

Evaluation, prediction on files and prediction on frames of any other source all come through here, so that the same
frames give the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sightline.video import transforms
from sightline.video.sampling import segment_frames
from sightline.video.sources import FrameSource

MOST_SHORT_SIDE = 8192
"""Of frames, in pixels: above every video, below what a few bytes of a file could stop a machine with."""


@dataclass(frozen=True)
class Preprocessing:
    """How a part of a video becomes a clip.

    Attributes:
        frames: Frames per clip: one from each of so many equal parts.
        size: Height and width of the square that is cut out.
        short_side: Length of a frame's shorter side when the square is cut.
        antialias: Whether frames are smoothed before they are made smaller.
    """

    frames: int = 16
    size: int = 224
    short_side: int = 256
    antialias: bool = True

    def __post_init__(self) -> None:
        if self.frames < 1 or self.size < 1:
            raise ValueError(f"Expected frames >= 1 and size >= 1, got frames={self.frames}, size={self.size}.")
        if self.short_side < self.size:
            raise ValueError(
                f"Expected short_side >= size, since a square of {self.size} is cut out of the resized frame, got "
                f"short_side={self.short_side}. Leave short_side out for size * 256 / 224."
            )
        if self.short_side > MOST_SHORT_SIDE:
            raise ValueError(f"Expected short_side of at most {MOST_SHORT_SIDE} pixels, got {self.short_side}.")

    def clip(self, source: FrameSource, start: float | None = None, end: float | None = None) -> Tensor:
        """Return a video, or the part of it between two times in seconds, as uint8 (3, T, size, size).

        This is the one fixed view of evaluation: the middle frame of each part, the square in the centre.

        Raises:
            UnreadableClip: Where the source has not got the frames.
        """
        frames = self.resized_frames(source, start, end)
        return transforms.cut_square(torch.from_numpy(frames), self.size)

    def resized_frames(
        self,
        source: FrameSource,
        start: float | None = None,
        end: float | None = None,
        frame_range: tuple[int, int] | None = None,
        count: int | None = None,
        offset: float = 0.5,
    ) -> np.ndarray:
        """Return frames of a video or a part of it, resized but not cut, uint8 (T, H, W, 3).

        Args:
            source: The video.
            start: Where the part begins, in seconds.
            end: Where it ends.
            frame_range: The part as the first frame and the one after the last; instead of start and end.
            count: How many frames to take, ``frames`` by default.
            offset: Place of a frame within each of ``count`` equal parts, 0 <= offset < 1.

        Raises:
            UnreadableClip: Where the source has not got the frames.
        """
        return source.read(
            partial(segment_frames, wanted=self.frames if count is None else count, offset=offset),
            start,
            end,
            partial(transforms.resize_short_side, short_side=self.short_side, antialias=self.antialias),
            frame_range,
        )
