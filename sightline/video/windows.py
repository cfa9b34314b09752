"""Windows that slide over a video."""

from __future__ import annotations

_ROUNDING_S = 1e-6


def sliding_windows(duration: float, window: float, stride: float) -> list[tuple[float, float]]:
    """Return the (start, end) of windows of one length that begin every ``stride`` seconds.

    All lie within the video. Where they leave a rest at its end, a last one ends with the video. A video that is
    shorter than a window is one.

    Raises:
        ValueError: If window or stride is not above 0.
    """
    if not (window > 0 and stride > 0):
        raise ValueError(f"Expected window and stride above 0 seconds, got {window:g} and {stride:g}.")
    if duration <= window + _ROUNDING_S:
        return [(0.0, duration)]
    count = int((duration - window + _ROUNDING_S) / stride) + 1
    windows = [(number * stride, min(number * stride + window, duration)) for number in range(count)]
    if duration - windows[-1][1] > _ROUNDING_S:
        windows.append((duration - window, duration))
    return windows
