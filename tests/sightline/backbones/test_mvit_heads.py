"""Heads of MViTv2: what is ablated and removed with them, and what the pooled query does meanwhile."""

from dataclasses import replace

import pytest
import torch

from sightline.backbones import Observer
from sightline.backbones.families.mvit import MViT
from sightline.types import Unit
from tests.conftest import randomise
from tests.sightline.backbones.test_mvit import IDENTITY, TINY, clips_for


@pytest.fixture
def tiny() -> MViT:
    return randomise(MViT(TINY, IDENTITY))


@torch.no_grad()
def test_the_pooled_query_stays_or_follows_its_head(tiny: MViT):
    follows = MViT(replace(TINY, residual_follows_head=True), IDENTITY).eval()
    follows.load_state_dict(tiny.state_dict())
    clips = clips_for(TINY)
    torch.testing.assert_close(follows(clips), tiny(clips), rtol=1e-5, atol=1e-6)
    none = torch.zeros(2)
    state = tiny.embed(clips)
    layer, other = tiny.layer_modules()[0], follows.layer_modules()[0]
    attended, joined = layer.attend(state, "attention"), other.attend(state, "attention")
    assert joined.residual is None
    assert (attended.residual[:, 0] == 0).all()  # the class token has none
    torch.testing.assert_close(joined.heads, attended.heads + attended.residual, rtol=1e-5, atol=1e-6)
    assert torch.equal(attended.gated(none).merged(), attended.residual.flatten(2))
    assert (joined.gated(none).merged() == 0).all()
    bias = other.block.attn.projection.bias
    ablated = other.project(state, "attention", joined.gated(none)).tokens
    torch.testing.assert_close(ablated, state.tokens + bias)


@pytest.mark.parametrize("follows", [False, True], ids=["residual stays", "residual follows"])
@torch.no_grad()
def test_removed_heads_are_gated_heads(follows: bool):
    config = replace(TINY, residual_follows_head=follows)
    full = randomise(MViT(config, IDENTITY))
    clips = clips_for(config)
    units = [Unit(0, "attention", 0), Unit(1, "attention", 3), Unit(1, "attention", 1), Unit(2, "attention", 2)]
    gates = {(0, "attention"): [0.0, 1], (1, "attention"): [1.0, 0, 1, 0], (2, "attention"): [1.0, 1, 0, 1]}
    expected = full(clips, gates={site: torch.tensor(gate) for site, gate in gates.items()})
    once = full.without_heads(units)
    twice = full.without_heads(units[:2]).without_heads(units[2:])
    torch.testing.assert_close(once(clips), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(twice(clips), once(clips))
    assert [info.sites[0].heads for info in once.layers] == [(1,), (0, 2), (0, 1, 3)]
    # One of four heads of layer 2, of width 8 in 32: keys and values; with its residual also queries and projection.
    own, left = (sum(p.numel() for p in model.blocks["2"].attn.parameters()) for model in (full, once))
    assert own - left == (3 * 8 * 33 + 32 * 8 if follows else 2 * 8 * 33)


@pytest.mark.parametrize("follows", [False, True], ids=["residual stays", "residual follows"])
@torch.no_grad()
def test_ablation_still_works_in_what_is_left(follows: bool):
    full = randomise(MViT(replace(TINY, residual_follows_head=follows), IDENTITY))
    smaller = full.without_heads([Unit(2, "attention", 0)])
    state = smaller.run(smaller.embed(clips_for(TINY)), 0, 2)
    layer = smaller.layer_modules()[2]
    attended = layer.attend(state, "attention")
    after = layer.project(state, "attention", attended).tokens
    for position in range(3):
        gate = torch.ones(3)
        gate[position] = 0
        expected = after - layer.project(state, "attention", attended.gated(gate)).tokens
        contribution = layer.contribution(state, "attention", attended, position)
        torch.testing.assert_close(contribution, expected, rtol=1e-4, atol=1e-5)
    observer = Observer(attention=True, keys=True)
    stepwise = smaller.run(state, 2, 3, observer=observer)
    torch.testing.assert_close(stepwise.tokens, smaller.run(state, 2, 3).tokens, rtol=1e-4, atol=1e-5)
    assert observer.sites[2, "attention"].attention.shape == (2, 1, 3, 33, 9)


@pytest.mark.parametrize("follows", [False, True], ids=["residual stays", "residual follows"])
def test_all_heads_of_a_layer_can_go(follows: bool):
    full = randomise(MViT(replace(TINY, residual_follows_head=follows), IDENTITY))
    clips = clips_for(TINY)
    for layer in (0, 1):
        site = full.layers[layer].sites[0]
        smaller = full.without_heads([Unit(layer, "attention", head) for head in site.heads])
        expected = full(clips, gates={(layer, "attention"): torch.zeros(len(site.heads))})
        torch.testing.assert_close(smaller(clips), expected, rtol=1e-4, atol=1e-5)
        observer = Observer(attention=True, keys=True)
        torch.testing.assert_close(smaller(clips, observer=observer), expected, rtol=1e-4, atol=1e-5)
        assert observer.sites[layer, "attention"].attention.shape[2] == 0
        smaller(clips).sum().backward()
