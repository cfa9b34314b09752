import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from sightline.video import transforms


def test_resize_keeps_proportions_and_type():
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    resized = transforms.resize_short_side(frame, 120)
    assert resized.shape == (120, 160, 3)
    assert resized.dtype == np.uint8
    assert transforms.resize_short_side(frame.transpose(1, 0, 2).copy(), 120).shape == (160, 120, 3)


@pytest.mark.parametrize("antialias", [True, False])
def test_resize_is_torchvisions(antialias):
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    expected = F.resize(torch.from_numpy(frame).permute(2, 0, 1).contiguous(), [30], antialias=antialias)
    ours = transforms.resize_short_side(frame, 30, antialias)
    # The kernel may differ with the memory layout, by rounding only.
    assert np.abs(ours.astype(int) - expected.permute(1, 2, 0).numpy().astype(int)).max() <= 1


def test_resize_leaves_the_right_size_alone():
    frame = np.zeros((30, 40, 3), dtype=np.uint8)
    assert transforms.resize_short_side(frame, 30) is frame


def test_crop_corner_by_hand():
    assert transforms.crop_corner(256, 341, 224) == (16, 59)  # 33 and 118 places: the middle ones are 16 and 59
    assert transforms.crop_corner(256, 341, 224, 0.0, 0.0) == (0, 0)
    assert transforms.crop_corner(256, 341, 224, 0.999, 0.999) == (32, 117)  # the last places
    assert transforms.crop_corner(224, 224, 224, 0.7, 0.7) == (0, 0)


def test_crop_corner_refuses_small_frames():
    with pytest.raises(ValueError, match="at least 224x224, got 300x200"):
        transforms.crop_corner(200, 300, 224)


def test_view_corners_by_hand():
    # Whole frames of 256x341: the centre as in evaluation, and both ends of the longer side.
    assert transforms.view_corners(256, 341, 224, 1) == [(16, 59)]
    assert transforms.view_corners(256, 341, 224, 3) == [(16, 0), (16, 59), (16, 117)]
    assert transforms.view_corners(341, 256, 224, 3) == [(0, 16), (59, 16), (117, 16)]
    assert transforms.view_corners(224, 224, 224, 3) == [(0, 0)] * 3
    with pytest.raises(ValueError, match="at least 224x224"):
        transforms.view_corners(200, 300, 224, 3)


def test_crop_and_layout():
    clip = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).reshape(2, 3, 4, 3)
    cut = transforms.crop(clip, (1, 2), 2)
    assert torch.equal(cut, clip[:, 1:3, 2:4])
    first = transforms.channels_first(cut)
    assert first.shape == (3, 2, 2, 2)
    assert first.is_contiguous()
    assert first[1, 0, 1, 0] == cut[0, 1, 0, 1]
