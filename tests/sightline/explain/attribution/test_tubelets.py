"""Tubelets: their grid, their pixels, and clips of which some are gone."""

import pytest
import torch

from sightline.backbones import build_backbone
from sightline.explain.attribution.tubelets import blurred, tubelet_grid, tubelet_ids, with_tubelets


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("vit_demo", (4, 8, 8)),
        ("timesformer_demo", (8, 4, 4)),
        ("video_swin_demo", (4, 8, 8)),  # 16x16 cells of 4 pixels, joined in twos
        ("mvit_demo", (4, 8, 8)),
    ],
)
def test_the_grid_is_the_embeddings_with_at_most_14_rows(name, grid):
    assert tubelet_grid(build_backbone(name, 3, {"frames": 8, "size": 64})) == grid


def test_a_pixel_lies_in_the_tubelet_of_its_place():
    backbone = build_backbone("vit_demo", 3, {"frames": 8, "size": 64})
    ids = tubelet_ids((4, 8, 8), backbone)
    assert ids.shape == (8, 64, 64)
    for t, y, x in ((0, 0, 0), (1, 7, 7), (2, 8, 0), (7, 63, 63), (5, 20, 41)):
        assert ids[t, y, x] == (t // 2) * 64 + (y // 8) * 8 + x // 8


def clip_of_four_frames():
    """Frame t of 2x2 pixels has the values t / 10, and two tubelets a frame: left and right column."""
    clips = (torch.arange(4.0) / 10).view(1, 1, 4, 1, 1).expand(1, 3, 4, 2, 2).contiguous()
    ids = (2 * torch.arange(4).view(4, 1, 1) + torch.arange(2).view(1, 1, 2)).expand(4, 2, 2)
    return clips, ids


def test_frozen_places_repeat_their_last_kept_frame():
    clips, ids = clip_of_four_frames()
    kept = torch.tensor([[True, False, False, False, True, True, False, False]])
    found = with_tubelets(clips, kept, ids, "freeze")
    assert torch.allclose(found[0, 0, :, 0, 0], torch.tensor([0.0, 0.0, 0.2, 0.2]))  # left: frames 0, 0, 2, 2
    assert torch.allclose(found[0, 0, :, 0, 1], torch.tensor([0.0, 0.0, 0.2, 0.2]))  # right: none before frame 2


def test_kept_frames_stay_and_uint8_is_scaled():
    clips, ids = clip_of_four_frames()
    everything = torch.ones(1, 8, dtype=torch.bool)
    for base in ("blur", "freeze"):
        assert torch.equal(with_tubelets(clips, everything, ids, base), clips)
    levels = torch.full((1, 3, 4, 2, 2), 51, dtype=torch.uint8)
    assert torch.allclose(with_tubelets(levels, everything, ids, "blur"), torch.tensor(0.2))


def test_a_blurred_clip_keeps_its_mean_and_its_motion_and_loses_its_detail():
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(1, 3, 4, 64, 64, generator=generator)
    clips[:, :, 2:] += 1.0  # brighter from the third frame on
    found = blurred(clips)
    assert torch.allclose(found.mean((3, 4)), clips.mean((3, 4)), atol=0.02)
    assert found.std(dim=(3, 4)).max() < 0.1 * clips.std(dim=(3, 4)).min()


def test_small_frames_are_blurred_as_far_as_they_can_be_padded():
    clips, ids = clip_of_four_frames()
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    assert torch.allclose(with_tubelets(clips, nothing, ids, "blur"), clips, atol=1e-6)  # even frames stay even


def test_an_unknown_base_names_those_that_exist():
    clips, ids = clip_of_four_frames()
    with pytest.raises(ValueError, match="'blur' or 'freeze', got 'black'"):
        with_tubelets(clips, torch.ones(1, 8, dtype=torch.bool), ids, "black")
