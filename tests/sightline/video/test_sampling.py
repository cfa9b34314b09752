import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.video.sampling import repeated_frame, segment_indices, uniform_indices


@pytest.mark.parametrize(
    ("num_frames", "wanted", "expected"),
    [
        (4, 4, [0, 1, 2, 3]),
        (8, 4, [1, 3, 5, 7]),  # parts of 2 frames: middles 1, 3, 5, 7
        (10, 4, [1, 3, 6, 8]),  # 1.25, 3.75, 6.25, 8.75
        (10, 1, [5]),
        (2, 4, [0, 0, 1, 1]),  # 0.25, 0.75, 1.25, 1.75
        (1, 3, [0, 0, 0]),
        (3, 5, [0, 0, 1, 2, 2]),  # 0.3, 0.9, 1.5, 2.1, 2.7
    ],
)
def test_uniform_by_hand(num_frames, wanted, expected):
    assert uniform_indices(num_frames, wanted) == expected


def test_offset_is_shared_by_all_parts():
    # Parts of 5 frames; 0.7 of a part is 3.5 frames.
    assert segment_indices(20, 4, 0.0) == [0, 5, 10, 15]
    assert segment_indices(20, 4, 0.7) == [3, 8, 13, 18]


@given(st.integers(1, 100_000), st.integers(1, 64), st.floats(0, 1, exclude_max=True))
def test_indices_are_within_their_parts(num_frames, wanted, offset):
    indices = segment_indices(num_frames, wanted, offset)
    assert len(indices) == wanted
    assert indices == sorted(indices)
    for part, index in enumerate(indices):
        # Exact integer bounds of the part's frames: floor(part n/T) .. ceil((part + 1) n/T) - 1
        assert part * num_frames // wanted <= index <= -(-(part + 1) * num_frames // wanted)
        assert 0 <= index < num_frames


@given(st.integers(1, 5_000), st.integers(1, 64))
def test_uniform_is_exact(num_frames, wanted):
    assert uniform_indices(num_frames, wanted) == [(2 * i + 1) * num_frames // (2 * wanted) for i in range(wanted)]


@pytest.mark.parametrize("arguments", [(0, 4, 0.5), (4, 0, 0.5), (4, 4, 1.0), (4, 4, -0.1)])
def test_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match="Expected"):
        segment_indices(*arguments)


def test_the_middle_frame_is_repeated_without_a_copy():
    clips = torch.arange(2 * 3 * 4).reshape(2, 3, 4, 1, 1)
    still = repeated_frame(clips)
    assert still.shape == clips.shape
    assert still[1, 2, :, 0, 0].tolist() == [22, 22, 22, 22]  # of 20, 21, 22, 23
    assert still.data_ptr() == clips[:, :, 2:].data_ptr()
