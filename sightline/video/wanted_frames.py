"""The wanted frames among those that come out of a decoder: set upright, as RGB."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Set

import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from sightline.video.video_file import explained

Convert = Callable[[np.ndarray], np.ndarray]


class WantedFrames:
    """The wanted frames among those offered, upright and converted."""

    def __init__(self, path: str, wanted: Set[int], convert: Convert | None, threads: int) -> None:
        self.frames: dict[int, np.ndarray] = {}
        self.wanted = wanted
        self.threads = threads
        self._path = path
        self._convert = convert
        self._turn: Convert | None = None
        self._to_rgb = VideoReformatter()

    def offer(self, index: int, frame: VideoFrame) -> None:
        """Take the frame if it is wanted; the others are never converted, which would cost more than decoding.

        Raises:
            UnreadableClip: Where it cannot be converted to RGB.
        """
        if index not in self.wanted:
            return
        with explained(self._path, lambda: f"frame {index} decoded"):
            if self._turn is None:
                self._turn = _turn(frame)
            rgb = self._turn(self._to_rgb.reformat(frame, format="rgb24", threads=self.threads).to_ndarray())
        self.put(index, rgb)

    def put(self, index: int, rgb: np.ndarray) -> None:
        """Take a wanted frame that is upright RGB (H, W, 3)."""
        self.frames[index] = rgb if self._convert is None else self._convert(rgb)


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d): a pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift and a common factor."""
    # PyAV's frames form a reference cycle with their side data, and would keep their memory until Python looks for
    # cycles: so a thumbnail is asked.
    thumbnail = VideoReformatter().reformat(frame, width=16, height=16, interpolation="POINT", threads=1)
    data = next((data for data in _side_data(thumbnail) if _is_matrix(data)), None)
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    return a, b, c, d


def _side_data(frame: VideoFrame) -> list[SideData]:
    """A frame's side data up to the first of a type that PyAV does not know, such as EXIF, at which it gives up.

    FFmpeg puts the display matrix before the EXIF that it is made from.
    """
    listed = SideDataContainer.__new__(SideDataContainer)
    with contextlib.suppress(ValueError):
        listed.__init__(frame)  # type: ignore[misc]
    return list(listed)


def _is_matrix(data: SideData) -> bool:
    try:
        return data.type == SideDataType.DISPLAYMATRIX
    except ValueError:
        return False


def _turn(frame: VideoFrame) -> Convert:
    """What sets an image (H, W, 3) of this video upright: turning and mirroring as the display matrix says."""
    a, b, c, d = display_matrix(frame)
    transposed = abs(a) + abs(d) < abs(b) + abs(c)
    right, down = (c, b) if transposed else (a, d)

    def turn(image: np.ndarray) -> np.ndarray:
        image = image.transpose(1, 0, 2) if transposed else image
        return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])

    return turn
