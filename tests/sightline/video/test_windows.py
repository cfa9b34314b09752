"""Windows by hand, and that they cover the video."""

import pytest

from sightline.video.windows import sliding_windows


@pytest.mark.parametrize(
    ("duration", "window", "stride", "expected"),
    [
        (10.0, 4.0, 3.0, [(0, 4), (3, 7), (6, 10)]),
        (10.5, 4.0, 3.0, [(0, 4), (3, 7), (6, 10), (6.5, 10.5)]),
        (3.0, 4.0, 1.0, [(0, 3)]),
        (4.0, 4.0, 1.0, [(0, 4)]),
        (6.0, 1.0, 3.0, [(0, 1), (3, 4), (5, 6)]),
        (0.3, 0.1, 0.1, [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),  # 0.1 is not exact in binary
    ],
)
def test_windows_by_hand(duration, window, stride, expected):
    found = sliding_windows(duration, window, stride)
    assert [value for pair in found for value in pair] == pytest.approx([value for pair in expected for value in pair])
    assert found[-1][1] <= duration


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_windows_need_lengths(window, stride):
    with pytest.raises(ValueError, match="above 0 seconds"):
        sliding_windows(10, window, stride)
