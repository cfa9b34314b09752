from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sightline.explain import color_range, overlay, write_mp4

DARKEST, BRIGHTEST = (68, 1, 84), (253, 231, 36)  # the ends of viridis


def test_colours_by_hand():
    frames = np.zeros((1, 1, 3, 3), dtype=np.uint8)
    attention = torch.tensor([[[0.0, 0.25, 0.5]]])
    drawn = overlay(frames, attention, opacity=1.0)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (1, 1, 3, 3))
    assert tuple(drawn[0, 0, 0]) == DARKEST
    assert tuple(drawn[0, 0, 2]) == BRIGHTEST
    assert tuple(overlay(frames, attention, limits=(0.0, 1.0), opacity=1.0)[0, 0, 2]) == tuple(drawn[0, 0, 1])
    # Above the scale: its end.
    assert tuple(overlay(frames, attention, limits=(0.0, 0.1), opacity=1.0)[0, 0, 1]) == BRIGHTEST


def test_frames_shine_through_without_their_colour():
    frames = np.full((1, 1, 1, 3), (200, 100, 50), dtype=np.uint8)
    none = torch.zeros(1, 1, 1)
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert overlay(frames, none, opacity=0.0).ravel().tolist() == [grey] * 3
    assert overlay(frames, none, opacity=0.5).ravel().tolist() == [
        round(0.5 * (0.299 * 200 + 0.587 * 100 + 0.114 * 50) + 0.5 * c) for c in DARKEST
    ]


def test_a_scale_that_several_maps_share():
    assert color_range([torch.tensor([0.1, 0.4]), torch.tensor([0.2, 0.9])]) == pytest.approx((0.0, 0.9))
    assert color_range([torch.tensor([-2.0, 0.5])]) == (-2.0, 0.5)


def test_one_scale_for_all_frames_of_a_clip():
    frames = np.zeros((2, 1, 1, 3), dtype=np.uint8)
    drawn = overlay(frames, torch.tensor([[[0.5]], [[1.0]]]), opacity=1.0)
    assert not np.array_equal(drawn[0], drawn[1])


def test_wrong_sizes_are_refused():
    frames = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"frames' sizes \(2, 4, 6\).*got \(2, 6, 4\)"):
        overlay(frames, torch.zeros(2, 6, 4))
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        overlay(frames, torch.zeros(2, 4, 6), opacity=2)
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(Path("never.mp4"), frames[:0], 25)


def test_videos_hold_the_frames(tmp_path: Path):
    levels = np.array([0, 60, 120, 180, 240], dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (5, 33, 47, 3)).copy()  # odd sizes
    write_mp4(tmp_path / "map.mp4", frames, 12.5)
    with av.open(str(tmp_path / "map.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, float(stream.average_rate)) == ("h264", 12.5)
        read = [frame.reformat(format="rgb24", threads=1).to_ndarray(threads=1) for frame in container.decode(stream)]
    assert [frame.shape for frame in read] == [(34, 48, 3)] * 5
    for frame, level in zip(read, levels, strict=True):
        assert abs(frame.astype(int) - level).max() <= 6  # compression and limited range
