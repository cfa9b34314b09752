"""Run-length tokenization: what counts as a change, both of its modes, and what it is known to do wrong."""

import pytest
import torch

from sightline.backbones import Place, build_backbone
from sightline.tokens import RLT, KeepGrid, kept_share, trace
from sightline.tokens.rlt import pixel_changes
from tests.conftest import randomise

STD = (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def vit():
    """Patches of 2x8x8 pixels on 4x8x8 cells; trained with ImageNet's normalisation."""
    return randomise(build_backbone("vit_demo", 2))


def still(batch=1, value=100):
    return torch.full((batch, 3, 8, 64, 64), value, dtype=torch.uint8)


def literally(clip, grid, std):
    """The definition, cell by cell, for whole cells."""
    frames, height, width = clip.shape[1:]
    t, h, w = grid
    depth, rows, columns = frames // t, height // h, width // w
    pixels = clip.double() / 255 / torch.tensor(std, dtype=torch.float64).view(3, 1, 1, 1)
    scores = torch.full(grid, torch.inf, dtype=torch.float64)
    for i in range(1, t):
        for j in range(h):
            for k in range(w):
                box = pixels[:, :, j * rows : (j + 1) * rows, k * columns : (k + 1) * columns]
                scores[i, j, k] = (box[:, (i + 1) * depth - 1] - box[:, (i - 1) * depth]).abs().mean()
    return scores


def test_a_change_is_the_last_frame_against_the_first_of_the_patch_before():
    clips = torch.randint(0, 256, (2, 3, 8, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for grid in ((4, 2, 3), (8, 4, 4), (2, 1, 1), (1, 2, 2)):
        expected = torch.stack([literally(clip, grid, STD) for clip in clips])
        torch.testing.assert_close(pixel_changes(clips, grid, STD).double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pixel_changes(clips.double() / 255, grid, STD), expected)


def test_cells_that_reach_beyond_the_clip_count_what_is_in_it():
    clip = torch.zeros(1, 3, 3, 5, 5)
    clip[:, :, 2, 4, 4] = 1.0  # in the last frame, alone in the last of 2x2 cells of 3x3 pixels with three others
    found = pixel_changes(clip, (2, 2, 2), (0.5, 0.5, 0.5))  # two frames to a cell, of which the second has one
    assert found[0, 1].tolist() == [[0, 0], [0, pytest.approx(2 / 4)]]


@torch.no_grad()
def test_the_threshold_is_in_normalised_pixels(vit):
    """.1 standard deviations of ImageNet's: .1 * .226 * 255 = 5.8 grey levels."""
    clips = still()
    for number, grey in enumerate((5, 6)):
        clips[0, :, 4:, :8, number * 8 : number * 8 + 8] += grey
    [found] = trace(vit, clips, RLT())
    # All 64 of the first frames; then in the third pair of frames the patch that rose by 6.
    assert found.cells.tolist() == [[*range(64), 2 * 64 + 1]]
    wide = randomise(build_backbone("video_swin_demo", 2))
    assert wide.record.std != vit.record.std  # the same clip under a checkpoint of another normalisation
    [embedding] = trace(wide, clips, RLT(at="embedding", threshold=6 / 255 / wide.record.std[0] + 1e-4))
    assert embedding.cells.tolist() == [[*range(64)]]
    [embedding] = trace(wide, clips, RLT(at="embedding", threshold=6 / 255 / wide.record.std[0] - 1e-4))
    assert embedding.cells.tolist() == [[*range(64), 2 * 64 + 1]]


@torch.no_grad()
def test_clips_keep_as_many_as_change_in_them(vit):
    clips = still(3)
    clips[1, :, 4:, :16, :8] += 50
    clips[2] = torch.randint(0, 256, clips[2].shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    [found] = trace(vit, clips, RLT())
    assert found.after.tolist() == [64, 66, 256]
    assert not RLT().equal_counts
    together = vit(clips, reducer=RLT())
    alone = torch.cat([vit(clip, reducer=RLT()) for clip in clips.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[2:], vit(clips[2:]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_share_keeps_what_changed_most(vit):
    clips = still(2)
    for place in range(5):
        clips[0, :, 4:, :8, place * 8 : place * 8 + 8] += 2 * (place + 1)
    reducer = RLT(fixed="share", kept=66 / 256)
    assert reducer.equal_counts
    [found] = trace(vit, clips, reducer)
    assert found.cells[0].tolist() == [*range(64), 131, 132]
    # Where nothing changes, the first frames and then an even pattern of the others.
    assert found.cells[1].tolist() == [*range(64), 64, 128]
    [found] = trace(vit, clips[1:], RLT(fixed="share", kept=16 / 256))
    [first_frame] = trace(vit, clips[1:], KeepGrid(kept=64 / 256))
    assert found.cells[0].tolist() == [cell for cell in first_frame.cells[0].tolist() if cell < 64]


@torch.no_grad()
def test_patches_of_any_family_and_stage(tiny_swin, tiny_clips):
    """In a later stage of Video Swin, a cell of 8x8 pixels that moved."""
    clips = torch.full_like(tiny_clips, 10)
    clips[0, :, 2:, 8:16, 16:24] += 100
    [found] = trace(tiny_swin, clips, RLT())
    assert (found.place, found.grid) == (Place("stage", 1), (2, 4, 4))
    assert found.after.tolist() == [17, 16, 16]
    assert found.cells[0].tolist() == [*range(16), 16 + 1 * 4 + 2]


@torch.no_grad()
def test_slow_drift_goes_for_ever(vit):
    """A weakness of the method: eyelids that close over the whole clip, by 5 grey levels from patch to patch."""
    clips = still()
    for pair in range(4):
        clips[:, :, 2 * pair : 2 * pair + 2] += 5 * pair
    assert int(clips[0, 0, -1, 0, 0]) - int(clips[0, 0, 0, 0, 0]) == 15  # nearly three times what counts as a change
    [found] = trace(vit, clips, RLT())
    assert found.after.tolist() == [64]
    # The same change at once stays.
    clips = still()
    clips[:, :, 4:] += 15
    assert trace(vit, clips, RLT())[0].after.tolist() == [128]


@torch.no_grad()
def test_noise_keeps_everything(vit):
    """The other one: a still scene under infrared keeps all tokens with noise of 6 grey levels, and none with 4."""
    for deviation, expected in ((6, 256), (4, 64)):
        noise = torch.randn(still().shape, generator=torch.Generator().manual_seed(0)) * deviation
        clips = (still() + noise).round().clamp(0, 255).to(torch.uint8)
        assert trace(vit, clips, RLT())[0].after.tolist() == [expected]


@torch.no_grad()
def test_a_higher_threshold_never_keeps_more(vit):
    noise = torch.rand(8, 8).kron(torch.ones(8, 8)) * torch.rand(8, 1, 1)
    clips = noise.expand(1, 3, -1, -1, -1)
    amounts = RLT().amounts(vit)
    assert amounts[0].threshold == 0
    shares = [float(kept_share(vit, clips, amount)) for amount in amounts[::60]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert float(kept_share(vit, clips, amounts[-1])) == 0.25  # more than pixels can change by
    assert len(RLT(fixed="share").amounts(vit)) == 1000


def test_bad_options_are_refused(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match="fixed threshold or share, got 'count'"):
        RLT(fixed="count")
    for threshold in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="must be 0 or more"):
            RLT(threshold=threshold)
    with pytest.raises(ValueError, match="pass the same reducer to embed and run"):
        RLT().fitted(tiny_swin).reduce(Place("embedding"), tiny_swin.embed(tiny_clips))
