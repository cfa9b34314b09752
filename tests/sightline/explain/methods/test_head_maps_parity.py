"""Maps against the weights that torchvision and transformers compute, put into place in plain loops.

The tolerance is that of sums in another order: weights differ by some 1e-6.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.backbones.families.timesformer import TimeSformer
from sightline.backbones.families.video_swin import VideoSwin
from sightline.backbones.families.vit import ViT
from sightline.explain import head_maps
from sightline.types import Unit
from tests.conftest import randomise
from tests.sightline.backbones import test_mvit as mvit
from tests.sightline.backbones import test_timesformer as timesformer
from tests.sightline.backbones import test_video_swin as swin
from tests.sightline.backbones import test_vit as vit
from tests.sightline.explain.captured import captured_softmax

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def window_map(weights: Tensor, grid: list[int], window: list[int], shift: list[int]) -> Tensor:
    """Mean over the queries of each window, (B, T, H, W), from torchvision's weights of one head (B * windows, n, n).

    Places that the cyclic shift did not bring together stand for each other: where some of them are padding, the
    others count for these too.
    """
    padded = [-(-g // w) * w for g, w in zip(grid, window, strict=True)]
    corners = list(product(*(range(0, p, w) for p, w in zip(padded, window, strict=True))))
    places = list(product(*(range(w) for w in window)))
    result = torch.zeros(len(weights) // len(corners), *grid)
    for number, corner in enumerate(corners):
        rolled = [[c + p for c, p in zip(corner, place, strict=True)] for place in places]
        cells = [[(r + s) % p for r, s, p in zip(at, shift, padded, strict=True)] for at in rolled]
        came_round = [[r + s >= p for r, s, p in zip(at, shift, padded, strict=True)] for at in rolled]
        real = [all(c < g for c, g in zip(cell, grid, strict=True)) for cell in cells]
        tokens = [came for came, there in zip(came_round, real, strict=True) if there]
        received = torch.zeros(len(result), len(places))
        for q, came in enumerate(came_round):
            if real[q]:
                factor = came_round.count(came) / tokens.count(came) / len(places)
                received += factor * weights[number :: len(corners), q]
        for k, cell in enumerate(cells):
            if real[k]:
                result[(slice(None), *cell)] = received[:, k]
    return result


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("name", ["padded windows", "odd sizes", "shifted in time too"])
@torch.no_grad()
def test_video_swin_equals_torchvision(name: str, shifted: bool):
    config = replace(swin.CASES[name], shifted_windows=shifted, size=min(swin.CASES[name].size, 36))
    ours, theirs = randomise(VideoSwin(config, swin.IDENTITY)), swin.reference(config)
    theirs.load_state_dict(ours.state_dict())
    clips = torch.rand(2, 3, config.frames, config.size, config.size)
    with captured_softmax() as weights:
        theirs(clips)
    heads = [Unit(info.index, "attention", info.sites[0].heads[-1]) for info in ours.layers]
    maps = head_maps(ours, clips, heads)
    assert len(weights) == ours.depth
    for unit, captured in zip(heads, weights, strict=True):
        grid = list(maps[unit].values.shape[1:])
        window = [min(w, g) for w, g in zip(config.window, grid, strict=True)]
        moves = shifted and unit.layer % 2 == 1
        shift = [w // 2 if moves and g > w else 0 for w, g in zip(config.window, grid, strict=True)]
        torch.testing.assert_close(maps[unit].values, window_map(captured[:, unit.head], grid, window, shift), **CLOSE)


@pytest.mark.parametrize("name", mvit.CASES)
@torch.no_grad()
def test_mvit_equals_torchvision(name: str):
    config = mvit.CASES[name]
    ours, theirs = mvit.both(config)
    clips = mvit.clips_for(config)
    with captured_softmax() as weights:
        theirs(clips)
    heads = [Unit(info.index, "attention", info.sites[0].heads[-1]) for info in ours.layers]
    maps = head_maps(ours, clips, heads)
    assert len(weights) == ours.depth
    grid, size = [config.frames // config.patch[0], *[config.size // config.patch[1]] * 2], list(config.patch)
    for unit, captured, block in zip(heads, weights, theirs.blocks, strict=True):
        pools = [p.pool.stride for p in (block.attn.pool_k, block.attn.pool_q)]
        keys, queries = ([-(-g // s) for g, s in zip(grid, stride, strict=True)] for stride in pools)
        cell = [s * k for s, k in zip(size, pools[0], strict=True)]
        pixels, row = maps[unit].pixels(), captured[:, unit.head, 0, 1:]
        key_of_pixel = [
            (t // cell[0] * keys[1] + y // cell[1]) * keys[2] + x // cell[2]
            for t, y, x in product(range(config.frames), range(config.size), range(config.size))
        ]
        torch.testing.assert_close(pixels.flatten(1), row[:, key_of_pixel], **CLOSE)
        grid, size = queries, [s * q for s, q in zip(size, pools[1], strict=True)]


def captured_transformers(theirs: torch.nn.Module, clips: Tensor) -> list[Tensor]:
    theirs.set_attn_implementation("eager")
    with captured_softmax() as weights:
        theirs(clips.transpose(1, 2))
    return weights


@torch.no_grad()
def test_timesformer_equals_transformers():
    config = replace(timesformer.TINY, frames=5)
    ours = randomise(TimeSformer(config, timesformer.IDENTITY))
    clips = timesformer.random_clips(ours)
    weights = captured_transformers(timesformer.reference(ours), clips)
    maps = head_maps(ours, clips, ours.units("heads"))
    assert len(weights) == 2 * ours.depth
    frames, side, patch = config.frames, config.size // config.patch, config.patch
    for layer, head in product(range(ours.depth), range(config.heads)):
        temporal, spatial = weights[2 * layer][:, head], weights[2 * layer + 1][:, head]
        in_time, in_space = (maps[Unit(layer, site, head)] for site in ("temporal", "spatial"))
        both = in_time.times(in_space).pixels()
        for clip, t, y, x in product(range(2), range(frames), range(side), range(side)):
            place = y * side + x
            attended = temporal[clip * side**2 + place, :, t].sum()
            looked_at = spatial[clip * frames + t, 0, 1 + place]
            torch.testing.assert_close(in_time.values[clip, t, y, x], attended, **CLOSE)
            torch.testing.assert_close(in_space.values[clip, t, y, x], looked_at, **CLOSE)
            patch_pixels = both[clip, t, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            torch.testing.assert_close(patch_pixels, (attended * looked_at).expand(patch, patch), **CLOSE)


@torch.no_grad()
def test_joint_timesformer_equals_transformers():
    ours = randomise(TimeSformer(replace(timesformer.TINY, attention="joint"), timesformer.IDENTITY))
    clips = timesformer.random_clips(ours)
    weights = captured_transformers(timesformer.reference(ours), clips)
    assert len(weights) == ours.depth
    for unit, found in head_maps(ours, clips, ours.units("heads")).items():
        row = weights[unit.layer][:, unit.head, 0, 1:]  # in the order (H, W, T)
        expected = row.unflatten(1, (3, 3, 4)).permute(0, 3, 1, 2)
        torch.testing.assert_close(found.values, expected, **CLOSE)


@torch.no_grad()
def test_vit_equals_transformers():
    ours: Backbone = randomise(ViT(vit.TINY, vit.IDENTITY))
    clips = vit.random_clips(ours)
    weights = captured_transformers(vit.reference(ours), clips)
    assert len(weights) == ours.depth
    for unit, found in head_maps(ours, clips, ours.units("heads")).items():
        expected = weights[unit.layer][:, unit.head].mean(dim=1).unflatten(1, (2, 3, 3))
        torch.testing.assert_close(found.values, expected, **CLOSE)
