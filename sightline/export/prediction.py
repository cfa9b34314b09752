"""Classes of a video, or of windows that slide over it, from an exported model: no run, no data set, no Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from sightline.video.preprocessing import Preprocessing
from sightline.video.sources import FrameSource
from sightline.video.video_file import UnreadableClip
from sightline.video.windows import sliding_windows


@dataclass(frozen=True)
class Part:
    """What is classified as one: a video, or a window of it.

    Attributes:
        video: Name of the video.
        start: Where the part begins, in seconds; None where the video's frames have no times.
        end: Where it ends.
    """

    video: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Prediction:
    """What a model says of a video, or of a window of it.

    Attributes:
        video: Name of the video.
        start: Where the part that was classified begins, in seconds; None where the video's frames have no times.
        end: Where it ends.
        class_name: The most probable class.
        probability: Its probability.
        probabilities: Probability of every class by its name, the most probable first.
    """

    video: str
    start: float | None
    end: float | None
    class_name: str
    probability: float
    probabilities: dict[str, float] = field(repr=False)


def check_windows(window: float | None, stride: float | None, batch: int) -> None:
    """Raise ValueError where a video cannot be cut and classified like this."""
    if batch < 1:
        raise ValueError(f"Expected batch of at least 1, got {batch}.")
    if window is None and stride is not None:
        raise ValueError("stride goes with window: say how many seconds a window lasts.")
    if window is not None:
        sliding_windows(0.0, window, window if stride is None else stride)


def read_parts(
    source: FrameSource,
    preprocessing: Preprocessing,
    window: float | None = None,
    stride: float | None = None,
    left_out: list[tuple[Part, UnreadableClip]] | None = None,
) -> Iterator[tuple[Part, Tensor]]:
    """Read a video as one clip, or window by window.

    Args:
        source: The video.
        preprocessing: How clips are made.
        window: Seconds of a window that slides over the video; the whole video is one clip if not given.
        stride: Seconds from one window's start to the next one's; the window's length if not given.
        left_out: Takes the windows that cannot be read, and the others are read all the same; without it the first of
            them is an error.

    Yields:
        Each part with its clip, uint8 (3, T, size, size).

    Raises:
        UnreadableClip: Where the video cannot be read.
        ValueError: If windows are asked for and the video's frames have no times.
    """
    seconds = source.seconds
    if window is None:
        yield Part(source.name, None if seconds is None else 0.0, seconds), preprocessing.clip(source)
        return
    if seconds is None:
        raise ValueError(f"Windows are in seconds, but no times of {source.name} are known. Pass fps.")
    for start, end in sliding_windows(seconds, window, window if stride is None else stride):
        part = Part(source.name, start, end)
        try:
            clip = preprocessing.clip(source, start, end)
        except UnreadableClip as error:
            if left_out is None:
                raise
            left_out.append((part, error))
        else:
            yield part, clip


def classify_parts(
    classify: Callable[[Tensor], Tensor], parts: Iterable[tuple[Part, Tensor]], classes: Sequence[str], batch: int
) -> Iterator[Prediction]:
    """Classify parts, ``batch`` of them at a time.

    Args:
        classify: From clips (B, 3, T, H, W) to probabilities (B, classes).
        parts: What `read_parts` gave.
        classes: Names of the classes.
        batch: How many clips run together, which results do not depend on.
    """
    parts = iter(parts)
    while some := list(islice(parts, batch)):
        rows = classify(torch.stack([clip for _, clip in some])).tolist()
        for (part, _), row in zip(some, rows, strict=True):
            named = sorted(zip(classes, row, strict=True), key=lambda pair: -pair[1])
            yield Prediction(part.video, part.start, part.end, *named[0], dict(named))
