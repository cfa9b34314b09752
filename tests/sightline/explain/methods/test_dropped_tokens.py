"""Maps of heads and rollout where tokens were dropped, against slow code."""

import pytest
import torch

from sightline.backbones import Observer, Place, build_backbone
from sightline.explain import head_maps, rollout
from sightline.tokens import KeepRandom
from sightline.types import Unit
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.backbones.reducers import KeepEvery, KeepLongKeys


def model_and_clips(name):
    backbone = randomise(build_backbone(name, 7))
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    return backbone, torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", DEMO_VARIANTS)
@torch.no_grad()
def test_a_map_shows_what_is_left(name):
    backbone, clips = model_and_clips(name)
    heads = backbone.units("heads")
    nothing, half = KeepEvery(1), KeepEvery(2)
    plain, same = head_maps(backbone, clips, heads), head_maps(backbone, clips, heads, nothing)
    assert all(torch.equal(plain[head].values, same[head].values) for head in heads)
    reduced = head_maps(backbone, clips, heads, half)
    cells = backbone.embed(clips, half).cell_numbers()[0].tolist()
    checked = 0
    for head in heads:
        values = reduced[head].values
        assert torch.isfinite(values).all()
        grid = values.shape[1:]
        if head.layer == 0 and grid == backbone.embed(clips).grid:
            dropped = [cell for cell in range(values[0].numel()) if cell not in cells]
            assert (values.flatten(1)[:, dropped] == 0).all(), head
            assert (values.flatten(1)[:, cells] > 0).any(), head
            checked += 1
    # MViT pools its keys from the filled grid: its maps show what is filled.
    assert checked or name == "mvit_demo"


@torch.no_grad()
def test_a_temporal_map_gives_every_place_the_weight_of_its_frames():
    backbone, clips = model_and_clips("timesformer_demo")
    t, h, w = backbone.embed(clips).grid
    head = Unit(0, "temporal", 0)
    reducer = KeepRandom(kept=0.2)
    [found] = head_maps(backbone, clips, [head], reducer).values()
    for clip, cells in enumerate(backbone.embed(clips, reducer).cell_numbers().tolist()):
        # Copies come from the nearest place of the frame, so their weight lies there; the total is T for every place
        # that still has a token of its own.
        assert found.values[clip].sum().item() == pytest.approx(t * len({cell % (h * w) for cell in cells}), rel=1e-5)


@torch.no_grad()
def test_a_map_under_a_reducer_that_asks_for_keys():
    backbone, clips = model_and_clips("vit_demo")
    reducer = KeepLongKeys((Place("layer", 1),))
    [found] = head_maps(backbone, clips, backbone.units("heads")[-1:], reducer).values()
    assert (found.values.flatten(1) > 0).sum(dim=1).tolist() == [128, 128]  # of 256 cells
    torch.testing.assert_close(found.values.flatten(1).sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", [n for n in DEMO_VARIANTS if not n.startswith(("mvit", "video_swin"))])
@torch.no_grad()
def test_rollout_is_the_product_of_whole_matrices(name):
    """Each site as one matrix over class token and all cells; dropped cells are rows of the identity by then."""
    backbone, clips = model_and_clips(name)
    later = (KeepEvery(2, (Place("layer", 1),)), KeepEvery(2, (Place("layer", 5),)))
    for reducer in (KeepEvery(1), KeepEvery(3), KeepEvery(3, ragged=True), *later):
        found = rollout(backbone, clips, reducer).values
        observer = Observer(attention=True)
        state = backbone.run(backbone.embed(clips, reducer), observer=observer, reducer=reducer)
        for clip in range(2):
            share = by_whole_matrices(backbone, observer, state, clip)
            torch.testing.assert_close(found[clip].flatten(), share[1:], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(share.sum(), torch.tensor(1.0))


def by_whole_matrices(backbone, observer, state, clip: int) -> torch.Tensor:
    count = state.grid[0] * state.grid[1] * state.grid[2]
    total = torch.eye(1 + count)
    for seen in observer.sites.values():
        layout, weights = seen.layout, seen.attention[clip].mean(dim=1)  # (G, n, n)
        cells = layout.cells.expand(len(seen.attention), -1, -1)[clip]
        copies = None if layout.copies is None else layout.copies.expand(len(seen.attention), -1, -1)[clip]
        matrix, standing = torch.zeros(1 + count, 1 + count), torch.zeros(1 + count)
        for group in range(len(cells)):
            slots = [0 if cell == -2 else cell + 1 for cell in cells[group].tolist()]
            for row, slot in enumerate(slots):
                if cells[group, row] == -1 or (copies is not None and copies[group, row]):
                    continue  # a token that does not exist, or a copy, of which what comes out is discarded
                standing[slot] += 1
                for column, other in enumerate(slots):
                    matrix[slot, other] += weights[group, row, column]
        there = standing > 0
        matrix[there] /= standing[there].unsqueeze(1)
        matrix[~there] = torch.eye(1 + count)[~there]
        total = (0.5 * matrix + 0.5 * torch.eye(1 + count)) @ total
    left = [cell + 1 for cell in state.cell_numbers()[clip].tolist() if cell >= 0]
    read = [0] if backbone.reads_class_tokens else left
    return total[read].mean(dim=0)
