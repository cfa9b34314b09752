from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sightline.backbones import Backbone, build_backbone
from sightline.backbones.families.timesformer import TimeSformer
from sightline.backbones.families.vit import ViT
from sightline.explain import head_maps, rollout
from sightline.types import Unit
from tests.conftest import randomise
from tests.sightline.backbones import test_timesformer as timesformer
from tests.sightline.backbones import test_vit as vit
from tests.sightline.explain.methods.test_head_maps_parity import CLOSE, captured_transformers
from tests.sightline.explain.planted import CASES, marked_clips, planted


def half_identity(matrix: Tensor) -> Tensor:
    return 0.5 * matrix + 0.5 * torch.eye(matrix.shape[-1])


def divided_matrices(temporal: Tensor, spatial: Tensor, frames: int, places: int) -> tuple[Tensor, Tensor]:
    """Both sites of a layer as matrices over all tokens of one clip: the class token, then (frame, place) row-major.

    From the means over heads, temporal (places, T, T) and spatial (T, 1 + places, 1 + places).
    """
    n = 1 + frames * places
    in_time, in_space = torch.zeros(n, n), torch.zeros(n, n)
    in_time[0, 0] = 1.0
    for t in range(frames):
        columns = [0, *(1 + t * places + p for p in range(places))]
        in_space[0, columns] += spatial[t, 0] / frames
        for p in range(places):
            in_space[1 + t * places + p, columns] = spatial[t, 1 + p]
            for other in range(frames):
                in_time[1 + t * places + p, 1 + other * places + p] = temporal[p, t, other]
    return half_identity(in_time), half_identity(in_space)


@torch.no_grad()
def test_divided_attention_is_the_whole_product_of_matrices():
    """With the weights of transformers' model, and nothing left out."""
    frames, places = 5, 9
    ours = randomise(TimeSformer(replace(timesformer.TINY, frames=frames), timesformer.IDENTITY))
    clips = timesformer.random_clips(ours)
    weights = [w.mean(dim=1) for w in captured_transformers(timesformer.reference(ours), clips)]
    found = rollout(ours, clips)
    assert (found.values.shape, found.cell) == ((2, frames, 3, 3), (1, 8, 8))
    for clip in range(2):
        product = torch.eye(1 + frames * places)
        for layer in range(ours.depth):
            temporal = weights[2 * layer].unflatten(0, (2, places))[clip]
            spatial = weights[2 * layer + 1].unflatten(0, (2, frames))[clip]
            in_time, in_space = divided_matrices(temporal, spatial, frames, places)
            product = in_space @ in_time @ product
        torch.testing.assert_close(product.sum(dim=1), torch.ones(len(product)), **CLOSE)
        torch.testing.assert_close(found.values[clip].flatten(), product[0, 1:], **CLOSE)


@torch.no_grad()
def test_one_divided_layer_is_the_published_combination():
    """W[i, t, p, q] = S[t, i, p] T[p, t, q], with the class token's rows averaged over the frames (see the module)."""
    frames, places = 5, 9
    ours = randomise(TimeSformer(replace(timesformer.TINY, frames=frames, depth=1), timesformer.IDENTITY))
    clips = timesformer.random_clips(ours)
    in_time, in_space = (w.mean(dim=1) for w in captured_transformers(timesformer.reference(ours), clips))
    for clip in range(2):
        temporal = half_identity(in_time.unflatten(0, (2, places))[clip])
        temporal = torch.cat((torch.eye(frames).unsqueeze(0), temporal))  # the class token attends to itself
        spatial = half_identity(in_space.unflatten(0, (2, frames))[clip])
        combined = torch.einsum("tip,ptq->itpq", spatial, temporal)
        class_row = combined[0].mean(dim=0)  # (1 + places, frames)
        expected = class_row[1:].t().reshape(frames, 3, 3)
        torch.testing.assert_close(rollout(ours, clips).values[clip], expected, **CLOSE)


@pytest.mark.parametrize("family", ["vit", "joint"])
@torch.no_grad()
def test_joint_attention_is_the_whole_product_of_matrices(family: str):
    if family == "vit":
        ours: Backbone = randomise(ViT(vit.TINY, vit.IDENTITY))
        theirs, clips = vit.reference(ours), vit.random_clips(ours)
    else:
        ours = randomise(TimeSformer(replace(timesformer.TINY, attention="joint"), timesformer.IDENTITY))
        theirs, clips = timesformer.reference(ours), timesformer.random_clips(ours)
    weights = captured_transformers(theirs, clips)
    product = torch.eye(weights[0].shape[-1])
    for captured in weights:
        product = half_identity(captured.mean(dim=1)) @ product
    if family == "vit":
        expected = product.mean(dim=1).unflatten(1, (2, 3, 3))
    else:
        expected = product[:, 0, 1:].unflatten(1, (3, 3, 4)).permute(0, 3, 1, 2)  # from (H, W, T)
    torch.testing.assert_close(rollout(ours, clips).values, expected, **CLOSE)


@torch.no_grad()
def test_uniform_attention_by_hand():
    """Over S = 9 places and the class token: half of what that holds stays there, and a tenth of the other half."""
    backbone = TimeSformer(timesformer.TINY, timesformer.IDENTITY).eval()
    for parameter in backbone.parameters():
        parameter.zero_()
    held = 0.2125  # by the class token; before each of three layers 1, 0.55, 0.325: half of it, and 0.05 of all
    values = rollout(backbone, timesformer.random_clips(backbone)).values
    torch.testing.assert_close(values, torch.full((2, 4, 3, 3), (1 - held) / (4 * 9)))
    pooled = ViT(vit.TINY, vit.IDENTITY).eval()
    for parameter in pooled.parameters():
        parameter.zero_()
    torch.testing.assert_close(rollout(pooled, vit.random_clips(pooled)).values, torch.full((2, 2, 3, 3), 1 / 18))


@pytest.mark.parametrize("name", ["timesformer", "vit"])
def test_the_peak_is_where_the_mark_is(name: str):
    backbone = planted(CASES[name][0])
    cell = CASES[name][1][0]
    clips, corners = marked_clips(backbone, cell)
    for values, corner in zip(rollout(backbone, clips).values, corners, strict=True):
        peak = torch.unravel_index(values.argmax(), values.shape)
        assert [int(p) * size for p, size in zip(peak, cell, strict=True)] == list(corner)


@torch.no_grad()
def test_pruned_models_leave_what_is_gone_out():
    backbone = randomise(TimeSformer(timesformer.TINY, timesformer.IDENTITY))
    clips = timesformer.random_clips(backbone)
    only = backbone.without([0, 2])
    bare = only.without_heads([Unit(1, "temporal", head) for head in range(4)])
    assert not torch.allclose(rollout(only, clips).values, rollout(backbone, clips).values, rtol=1e-2)
    # No temporal head is left: the class token reads each frame by its spatial attention alone.
    heads = [Unit(1, "spatial", head) for head in range(4)]
    spatial = torch.stack([found.values for found in head_maps(bare, clips, heads).values()]).mean(dim=0)
    torch.testing.assert_close(rollout(bare, clips).values, 0.5 * spatial / 4, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="at least one layer"):
        rollout(backbone.without([0, 1, 2]), clips)


@pytest.mark.parametrize("name", ["video_swin_demo", "mvit_demo"])
def test_matrices_that_are_not_square_are_refused(name: str):
    backbone = build_backbone(name, 4).eval()
    spec = backbone.input_spec
    with pytest.raises(ValueError, match=rf"must be square.*{backbone.family} are not.*maps of single heads"):
        rollout(backbone, torch.zeros(1, 3, spec.frames, spec.height, spec.width))


def test_training_mode_is_refused():
    backbone = build_backbone("vit_demo", 4).train()
    with pytest.raises(ValueError, match="evaluation mode"):
        rollout(backbone, torch.zeros(1, 3, 8, 64, 64))
