"""Where the frames of a video come from: a file, or frames that are decoded already.

Everything that takes a video takes a `FrameSource`. A camera enters by the same door: what it has recorded lately is a
`DecodedFrames` with the times at which its frames were taken, or a subclass of `FrameSource` of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from os import PathLike, fspath

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sightline.video.decoding import Decoder, read_frames, stacked_frames
from sightline.video.timeline import Choose, Timeline, chosen_frames, count_packets, remembered
from sightline.video.wanted_frames import Convert

Image = NDArray[np.uint8] | Tensor
"""One frame, uint8 (H, W, 3), RGB."""


class FrameSource(ABC):
    """One video, of which chosen frames can be read.

    Attributes:
        name: What messages and results call it.
    """

    name: str

    @property
    @abstractmethod
    def seconds(self) -> float | None:
        """How long the video is shown, from its first frame to the end of its last; None where no times are known.

        Raises:
            UnreadableClip: Where the video cannot be read.
        """

    @abstractmethod
    def read(
        self,
        choose: Choose,
        start: float | None = None,
        end: float | None = None,
        convert: Convert | None = None,
        frame_range: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Read chosen frames of the video or of a part of it, as upright RGB, uint8 (T, H, W, 3).

        Args:
            choose: Gives the indices to read, for the times in seconds at which the part's frames begin and the one at
                which the last of them ends; an index may repeat.
            start: Where the part begins, in seconds from the video's first frame; by default there.
            end: Where it ends; by default with the video.
            convert: Applied to each frame (H, W, 3) that was chosen.
            frame_range: The part as the first frame and the one after the last; instead of start and end.

        Raises:
            UnreadableClip: Where the video has no such frames or they cannot be read.
            ValueError: Where a part in seconds is asked for and no times are known.
        """


class VideoFile(FrameSource):
    """A video file on a local disk."""

    def __init__(self, path: str | PathLike[str], decoder: Decoder = "pyav") -> None:
        """Name the file; it is opened when its frames are read.

        Args:
            path: The file.
            decoder: What decodes, ``pyav`` or ``torchcodec``.
        """
        self.name = fspath(path)
        self.decoder = decoder

    @property
    def seconds(self) -> float:
        return remembered(count_packets, self.name, 1).end

    def read(
        self,
        choose: Choose,
        start: float | None = None,
        end: float | None = None,
        convert: Convert | None = None,
        frame_range: tuple[int, int] | None = None,
    ) -> np.ndarray:
        return read_frames(self.name, choose, start, end, convert, frame_range=frame_range, decoder=self.decoder)


class DecodedFrames(FrameSource):
    """Frames in memory: a list, an array, or what a camera has recorded lately."""

    def __init__(
        self,
        frames: Image | Iterable[Image],
        fps: float | None = None,
        times: Sequence[float] | None = None,
        name: str = "frames",
    ) -> None:
        """Take the frames as they are, without copying them.

        Args:
            frames: uint8 (T, H, W, 3), RGB, as one array or tensor, or one (H, W, 3) after the other.
            fps: Frames per second.
            times: Instead of a rate: when each frame was taken, in seconds from any origin, rising.
            name: What messages and results call these frames.

        Raises:
            ValueError: If there is no frame, or frames or times are not of this form.
        """
        self.name = name
        self._images = [_image(frame, place) for place, frame in enumerate(frames)]
        if not self._images:
            raise ValueError("Expected at least one frame, got none.")
        self._timed = fps is not None or times is not None
        self._timeline = _timeline(len(self._images), fps, times)

    @property
    def seconds(self) -> float | None:
        return self._timeline.end if self._timed else None

    def read(
        self,
        choose: Choose,
        start: float | None = None,
        end: float | None = None,
        convert: Convert | None = None,
        frame_range: tuple[int, int] | None = None,
    ) -> np.ndarray:
        if not self._timed and (start is not None or end is not None):
            raise ValueError(
                f"A part in seconds was asked for, but no times of the {len(self._images)} frames are known. Pass fps, "
                "or the times at which they were taken."
            )
        chosen, _ = chosen_frames(self._timeline, choose, start, end, frame_range, self.name)
        # A copy: what is given may be read-only or run backwards in memory (BGR turned to RGB), which PyTorch refuses.
        wanted = {index: np.array(self._images[index], order="C") for index in chosen}
        if convert is not None:
            wanted = {index: convert(image) for index, image in wanted.items()}
        return stacked_frames(wanted, chosen, self.name)


def as_source(
    video: FrameSource | str | PathLike[str] | Image | Iterable[Image], fps: float | None = None
) -> FrameSource:
    """Return a source of frames: of the file at a path, or of frames that are decoded already.

    Args:
        video: A path, frames as `DecodedFrames` takes them, or a source, which is returned as it is.
        fps: Frames per second of decoded frames.

    Raises:
        ValueError: If ``fps`` is given for something that has times of its own, or the frames are no frames.
    """
    if isinstance(video, str | PathLike | FrameSource):
        if fps is not None:
            raise ValueError(
                f"fps goes with decoded frames; a {type(video).__name__} says itself when frames are shown."
            )
        return video if isinstance(video, FrameSource) else VideoFile(video)
    return DecodedFrames(video, fps)


def _image(frame: Image, place: int) -> NDArray[np.uint8]:
    image = frame.detach().cpu().numpy() if isinstance(frame, Tensor) else frame
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        came = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(frame).__name__
        raise ValueError(f"Expected frames as uint8 (H, W, 3) in RGB, got {came} as frame {place}.")
    return image


def _timeline(count: int, fps: float | None, times: Sequence[float] | None) -> Timeline:
    """When the frames are shown; with neither rate nor times they are evenly spaced, and a second means nothing."""
    if fps is not None and times is not None:
        raise ValueError("Expected fps or times, got both.")
    if times is None:
        rate = 1.0 if fps is None else float(fps)
        if not 0 < rate < np.inf:
            raise ValueError(f"Expected a positive number of frames per second, got {fps}.")
        return Timeline(np.arange(count) / rate, count / rate)
    shown = np.asarray(times, dtype=np.float64)
    if shown.shape != (count,) or not np.isfinite(shown).all() or (np.diff(shown) <= 0).any():
        raise ValueError(f"Expected {count} rising times in seconds, one per frame, got {_shortened(shown)}.")
    if count == 1:
        raise ValueError("How long a single frame is shown does not follow from its time. Pass fps instead of times.")
    rising = shown - shown[0]
    # The last frame is taken to be shown as long as the others are in the mean.
    return Timeline(rising, float(rising[-1] + rising[-1] / (count - 1)))


def _shortened(times: np.ndarray) -> str:
    return np.array2string(times, threshold=8, edgeitems=3)
