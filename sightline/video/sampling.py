"""Which frames of a clip are taken: one from each of T equal parts, so that the whole clip is always covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def segment_indices(num_frames: int, wanted: int, offset: float) -> list[int]:
    """Take one frame from each of ``wanted`` equal parts of a clip, at the same place in each.

    Part i covers the positions [i n/T, (i+1) n/T) of n = ``num_frames`` frames in T = ``wanted`` parts, and the frame
    at position (i + offset) n/T is taken, rounded down. A clip with fewer frames than wanted repeats some.

    Args:
        num_frames: Frames in the clip, at least 1.
        wanted: How many to take.
        offset: Place within a part, 0 <= offset < 1.

    Returns:
        Indices that never fall, each in 0..num_frames-1.
    """
    if num_frames < 1 or wanted < 1:
        raise ValueError(f"Expected at least one frame to choose from and to take, got {num_frames} and {wanted}.")
    if not 0 <= offset < 1:
        raise ValueError(f"Expected 0 <= offset < 1, got {offset}.")
    # min: (i + offset) n/T may round up to n in floating point where the offset is almost 1.
    return [min(int((part + offset) * num_frames / wanted), num_frames - 1) for part in range(wanted)]


def segment_frames(times: np.ndarray, end: float, wanted: int, offset: float) -> list[int]:
    """Take the frame that is shown at the same place in each of ``wanted`` equal parts of a clip's duration.

    Where frames are evenly spaced, but for half a frame (files round times), this is `segment_indices`.

    Args:
        times: When the clip's frames begin, rising.
        end: When the last one ends.
        wanted: How many to take.
        offset: Place within a part, 0 <= offset < 1.

    Returns:
        Indices that never fall, each in 0..len(times)-1.
    """
    by_count = segment_indices(len(times), wanted, offset)
    spacing = (times[-1] - times[0]) / max(len(times) - 1, 1)
    if np.abs(times - np.linspace(times[0], times[-1], len(times))).max() <= spacing / 2:
        return by_count
    moments = times[0] + (np.arange(wanted) + offset) * ((end - times[0]) / wanted)
    # The frame shown is the last one that has begun.
    return (np.searchsorted(times, moments, side="right") - 1).tolist()


def uniform_indices(num_frames: int, wanted: int) -> list[int]:
    """Take the middle frame of each of ``wanted`` equal parts: what evaluation sees."""
    return segment_indices(num_frames, wanted, 0.5)


def repeated_frame(clips: Tensor) -> Tensor:
    """Show the middle frame of every clip throughout, so that nothing moves: (B, C, T, H, W), as a view."""
    middle = clips.shape[2] // 2
    return clips[:, :, middle : middle + 1].expand_as(clips)
