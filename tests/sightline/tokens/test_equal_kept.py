"""Finding the amount that keeps a share: exactly, in few runs, and honestly where it cannot be kept."""

import math

import pytest
import torch

from sightline.backbones import build_backbone
from sightline.tokens import REDUCERS, TokenReduction, equal_kept, kept_share, trace
from sightline.tokens.equal_kept import at_kept, nearest_amount
from tests.conftest import randomise

FALLING = {
    "straight": lambda index: 1 - index / 1000,
    "in steps": lambda index: math.ceil(256 * (1 - index / 1000)) / 256,
    "steep": lambda index: 0.05 + 0.95 * math.exp(-index / 20),
    "flat, then a cliff": lambda index: 1 - index / 1e5 if index < 700 else 0.1,
    "never far": lambda index: 0.6 + 0.4 * (1 - index / 1000) ** 2,
}


@pytest.mark.parametrize("shares", FALLING.values(), ids=FALLING)
def test_it_is_the_nearest_of_all(shares):
    for wanted in (0.01, 0.25, 0.5, 0.7, 0.9, 0.9999, 1.0):
        asked = []

        def share(index, asked=asked):
            asked.append(index)
            return shares(index)

        index, found = nearest_amount(share, 1000, wanted)
        assert found == shares(index)
        assert abs(found - wanted) <= min(abs(shares(other) - wanted) for other in range(1000)) + 1e-6
        assert len(asked) == len(set(asked)) <= 20
    assert nearest_amount(lambda index: 0.3, 1, 0.9) == (0, 0.3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["random", "grid", "temporal_difference", "attention"])
def test_after_the_embedding_the_share_is_exact(name):
    vit = randomise(build_backbone("vit_demo", 2))
    clips = torch.randint(0, 256, (2, 3, 8, 64, 64), dtype=torch.uint8)
    for kept in (0.75, 0.5, 0.25):
        assert at_kept(TokenReduction.of(name), vit, kept, clips) == (TokenReduction.of(name, {"kept": kept}), kept)
    found, share = at_kept(TokenReduction.of(name, {"attention": "filled"}), vit, 0.9, clips)
    assert dict(found.options)["attention"] == "filled"
    assert abs(share - 0.9) <= 0.5 / 256 + 1e-6


@torch.no_grad()
def test_a_share_below_the_dense_layers_is_told(tiny_swin, tiny_clips):
    """The first two of four layers run on all tokens, so that no less than half can be kept."""
    found, share = at_kept(TokenReduction.of("grid"), tiny_swin, 0.25, tiny_clips)
    assert share == (2 + 2 / 32) / 4
    assert found == TokenReduction.of("grid", {"kept": 0.001})
    found, share = at_kept(TokenReduction.of("grid"), tiny_swin, 0.75, tiny_clips)
    assert share == 0.75
    [at] = trace(tiny_swin, tiny_clips, found.build())
    assert at.after.tolist() == [16] * 3  # half of the 32 cells of the second stage


@torch.no_grad()
def test_only_what_depends_on_the_clip_runs_on_all_clips(monkeypatch):
    vit = randomise(build_backbone("vit_demo", 2))
    still, moving = (torch.full((1, 3, 8, 64, 64), 9, dtype=torch.uint8) for _ in range(2))
    moving[:, :, ::4, :32] = 200
    clips, seen = torch.cat((still, moving)), set()
    original = equal_kept.kept_share

    def spied(backbone, shown, reducer):
        assert len(shown) == 1
        seen.add(bool((shown == 9).all()))
        return original(backbone, shown, reducer)

    monkeypatch.setattr(equal_kept, "kept_share", spied)
    at_kept(TokenReduction.of("grid"), vit, 0.5, clips)
    assert seen == {True}
    found, share = at_kept(TokenReduction.of("rlt"), vit, 0.4, clips)
    assert seen == {True, False}
    # Both keep the first 64 of 256 patches. Of the other, 32 differ from frame 0 and, two pairs later, from frame 4.
    assert share == pytest.approx((64 + 64 + 2 * 32) / 512)
    assert dict(found.options)["threshold"] < (200 - 9) / 255 / 0.229


def test_what_cannot_be_is_said(tiny_swin, tiny_clips):
    for kept in (0.0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            at_kept(TokenReduction.of("grid"), tiny_swin, kept, tiny_clips)
    with pytest.raises(ValueError, match="at least one, got none"):
        at_kept(TokenReduction.of("grid"), tiny_swin, 0.5, tiny_clips[:0])
    with pytest.raises(ValueError, match="after layer 9"):
        at_kept(TokenReduction.of("grid", {"layer": 9}), tiny_swin, 0.5, tiny_clips)


@torch.no_grad()
@pytest.mark.parametrize("name", REDUCERS)
def test_every_method_can_be_matched(name):
    """Every family and more shares: tests/sightline/tokens/test_reducer_conformance.py."""
    vit = randomise(build_backbone("vit_demo", 2, interpreters={}))
    clips = torch.randint(0, 256, (1, 3, 8, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clips[:, :, :, 32:] = clips[:, :, :1, 32:]
    found, share = at_kept(TokenReduction.of(name), vit, 0.6, clips)
    assert found.name == name
    assert share == float(kept_share(vit, clips, found.build()))
    assert abs(share - 0.6) < 0.05
