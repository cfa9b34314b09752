"""Keeping tokens at random: how many, which, and that nothing but clip, seed and place decides."""

import pytest
import torch

from sightline.backbones import Place
from sightline.tokens import KeepRandom, kept_share, trace


@torch.no_grad()
def test_the_share_is_kept_and_rounded_up(tiny_swin, tiny_clips):
    # tiny_swin: 2x8x8 = 128 cells, then merged to 32.
    for kept, count in ((0.5, 64), (0.1, 13), (0.001, 1), (1.0, 128)):
        [found] = trace(tiny_swin, tiny_clips, KeepRandom(kept=kept, at="embedding"))
        assert found.place == Place("embedding")
        assert found.grid == (2, 8, 8)
        assert found.after.tolist() == [count] * 3
        assert all(len(set(row)) == count for row in found.cells.tolist())


@torch.no_grad()
def test_clips_get_draws_of_their_own(tiny_swin, tiny_clips):
    [found] = trace(tiny_swin, tiny_clips, KeepRandom(kept=0.5))
    assert not torch.equal(found.cells[0], found.cells[1])
    [alone] = trace(tiny_swin, tiny_clips[1:2], KeepRandom(kept=0.5))
    assert torch.equal(alone.cells[0], found.cells[1])
    [other] = trace(tiny_swin, tiny_clips, KeepRandom(kept=0.5, seed=1))
    assert not torch.equal(other.cells, found.cells)


@torch.no_grad()
def test_every_cell_is_as_likely_to_stay(tiny_swin):
    clips = torch.randint(0, 256, (200, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = tiny_swin.embed(clips, KeepRandom(kept=0.25, at="embedding"))
    often = torch.zeros(128).scatter_add(0, state.cell_numbers().flatten(), torch.ones(200 * 32))
    # 200 draws of probability 1/4: mean 50, deviation 6.1; the extremes of 128 lie within 4 deviations.
    assert often.sum() == 200 * 32
    assert often.min() > 25
    assert often.max() < 75


@torch.no_grad()
def test_the_share_of_a_layer_counts_what_enters_it(tiny_swin, tiny_clips):
    # Dropped after layer 0, so layer 1 alone runs on a quarter; the merging before layer 2 fills the grid again.
    share = kept_share(tiny_swin, tiny_clips, KeepRandom(kept=0.25, layer=0))
    torch.testing.assert_close(share, torch.full((3,), (1 + 0.25 + 1 + 1) / 4))
    smaller = tiny_swin.without([1, 3])
    share = kept_share(smaller, tiny_clips, KeepRandom(kept=0.25, layer=2))
    torch.testing.assert_close(share, torch.ones(3))


def test_bad_options_are_refused(tiny_swin, tiny_clips):
    for kept in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            KeepRandom(kept=kept)
    with pytest.raises(ValueError, match=r"layers 0 to 3.*layer 9"):
        tiny_swin(tiny_clips, reducer=KeepRandom(layer=9))
    reducer = KeepRandom()
    with pytest.raises(ValueError, match="pass the same reducer to embed and run"):
        reducer.reduce(Place("embedding"), tiny_swin.embed(tiny_clips))
