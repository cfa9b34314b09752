"""Attention at the tokens that are left gives what attention over filled groups gives there."""

import copy
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from sightline.backbones import Place, build_backbone
from sightline.backbones.contract.layer import Layer
from sightline.backbones.parts import sparse_windows
from sightline.backbones.parts.attention import counting
from sightline.export.counting import macs_by_clip
from tests.conftest import randomise
from tests.sightline.backbones.reducers import KeepEvery
from tests.sightline.backbones.sparse_attention.reductions import FILLED, KINDS, SPARSE, dense, reduced

# Sums of some hundred float32 products in another order; heads are of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
WIDTH = 24
SWIN = {"frames": 8, "size": 40, "width": WIDTH, "depths": [2], "heads": [3]}
TIMESFORMER = {"frames": 4, "size": 32, "patch": 8, "width": WIDTH, "heads": 3, "depth": 2}


@lru_cache(maxsize=32)
def swin_layer(window: tuple[int, int, int], shifted: bool) -> Layer:
    backbone = randomise(build_backbone("video_swin_demo", 5, {**SWIN, "window": list(window)}))
    return backbone.layer_modules()[int(shifted)]


@pytest.fixture(scope="module")
def divided() -> Layer:
    return randomise(build_backbone("timesformer_demo", 5, TIMESFORMER)).layer_modules()[0]


def heads_of(layer: Layer, state, kind: str, seed: int, site: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Heads of a site at the tokens that exist, sparse and filled, (rows, h, d)."""
    found = []
    for how in (SPARSE, FILLED):
        left = reduced(state, kind, how, seed)
        heads = layer.attend(left, site).heads
        exists = left.kept.exists
        if exists is not None:
            copies = heads.shape[1] - exists.shape[1]
            exists = torch.nn.functional.pad(exists, (copies, 0), value=True)
            assert torch.isfinite(heads).all()
        found.append(heads.flatten(0, 1) if exists is None else heads[exists])
    return found[0], found[1]


sizes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(2, 9))
windows = st.sampled_from([(1, 1, 1), (2, 3, 4), (3, 5, 2), (4, 4, 4), (2, 7, 1)])


@pytest.mark.parametrize("distinct", [0.0, 1.0], ids=["copies among the keys", "distinct keys"])
@settings(max_examples=25, deadline=None)
@given(grid=sizes, window=windows, shifted=st.booleans(), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
@torch.no_grad()
def test_windows_of_any_geometry(distinct, grid, window, shifted, kind, seed):
    layer = swin_layer(window, shifted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_windows, "DISTINCT", distinct)
        sparse, filled = heads_of(layer, dense(grid, 3, WIDTH, seed=seed), kind, seed, "attention")
    torch.testing.assert_close(sparse, filled, **TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(grid=sizes, kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
@torch.no_grad()
def test_frames_of_any_grid(divided, grid, kind, seed):
    state = dense(grid, 3, WIDTH, class_tokens=1, seed=seed)
    sparse, filled = heads_of(divided, state, kind, seed, "spatial")
    torch.testing.assert_close(sparse, filled, **TOLERANCE)
    sparse, filled = (
        divided.attend_class(reduced(state, kind, how, seed), "spatial").heads for how in (SPARSE, FILLED)
    )
    torch.testing.assert_close(sparse, filled, **TOLERANCE)


def test_a_mask_of_minus_100_is_none_at_logits_of_any_size_that_occurs():
    """Between the regions of a shifted window, exp(-100) is left over: nothing where logits lie up to 60 apart."""
    layer = copy.deepcopy(swin_layer((4, 4, 4), True))
    state = dense((8, 8, 8), 1, WIDTH)
    with torch.no_grad():
        width = WIDTH
        layer.attn.qkv.weight[: 2 * width] *= 2.5
        spread = layer.attend(reduced(state, "random", FILLED), "attention", weights=True, keys=True)
        q = layer.attend(reduced(state, "random", SPARSE), "attention", features=["queries"]).features["queries"]
        logits = torch.einsum("bnhd,bwhkd->bhnwk", q, spread.keys) * (width / 3) ** -0.5
        assert logits.max() - logits.min() > 60
        sparse, filled = heads_of(layer, state, "random", 0, "attention")
    torch.testing.assert_close(sparse, filled, **TOLERANCE)


@pytest.mark.parametrize("distinct", [0.0, 1.0], ids=["copies among the keys", "distinct keys"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(divided, kind, distinct, monkeypatch):
    monkeypatch.setattr(sparse_windows, "DISTINCT", distinct)
    for layer, site, state in (
        (swin_layer((2, 3, 4), True), "attention", dense((4, 7, 6), 2, WIDTH)),
        (divided, "spatial", dense((3, 4, 3), 2, WIDTH, class_tokens=1)),
    ):
        found = []
        for how in (SPARSE, FILLED):
            layer.zero_grad()
            tokens = state.tokens.clone().requires_grad_()
            left = reduced(replace(state, tokens=tokens), kind, how)
            after = layer.project(left, site, layer.attend(left, site))
            there = 1.0 if left.key_mask is None else left.key_mask.unsqueeze(2)
            (after.tokens * there).square().sum().backward()
            found.append([tokens.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
            assert len(found[-1]) > 5
        for ours, theirs in zip(*found, strict=True):
            # Gradients are sums over all tokens, of order 100.
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)


@torch.no_grad()
def test_a_layer_without_some_or_all_heads(divided):
    swin, divided = copy.deepcopy(swin_layer((2, 3, 4), True)), copy.deepcopy(divided)
    for gone in ([1], [0, 1]):
        for layer, site, classes in ((swin, "attention", 0), (divided, "spatial", 1)):
            layer.remove_heads(site, gone)
            state = dense((3, 5, 5), 2, WIDTH, classes)
            sparse, filled = heads_of(layer, state, "ragged", 0, site)
            torch.testing.assert_close(sparse, filled, **TOLERANCE)
            assert sparse.shape[1:] == (len(layer.sites[-1].heads), WIDTH // 3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["video_swin_demo", "timesformer_demo"])
def test_whole_models_and_what_they_cost(name):
    backbone = randomise(build_backbone(name, 5))
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for at in (Place("embedding"), Place("layer", 0)):
        sparse, filled = (KeepEvery(3, (at,), ragged=True, attention=way) for way in ("sparse", "filled"))
        torch.testing.assert_close(
            backbone(clips, reducer=sparse), backbone(clips, reducer=filled), rtol=1e-4, atol=1e-5
        )
        for less, more in zip(*(macs_by_clip(backbone, r, clips) for r in (sparse, filled)), strict=True):
            assert less < more


@torch.no_grad()
def test_multiply_adds_by_hand():
    """Of 2 x 2 x 2 windows of 2 x 3 x 4 cells, the first has 4 tokens, and the last one of its own.

    The last one's frame without a token is filled from the nearest frames, of which the earlier has the fourth token.
    """
    layer = swin_layer((2, 3, 4), False)
    state = dense((4, 6, 8), 1, WIDTH)
    cells = torch.tensor([[0, 1, 2, 50, 191]])
    counts = []
    for how in (SPARSE, FILLED):
        left = state.select(cells, None, how)
        with counting(), FlopCounterMode(display=False) as counter:
            layer.attend(left, "attention")
        counts.append(counter.get_total_flops() // 2 - 5 * WIDTH * 3 * WIDTH)
    assert counts == [2 * (4 * 4 + 1 * 2) * WIDTH, 2 * 192 * 24 * WIDTH]
