"""Maps of heads and rollout where tokens were merged, against slow code and the dense model."""

import pytest
import torch

from sightline.backbones import Backbone, Observer, Place, Reducer, build_backbone, run_steps
from sightline.explain import head_maps, rollout
from sightline.tokens import ToMe
from sightline.types import Unit
from tests.conftest import randomise
from tests.sightline.backbones.reducers import KeepEvery, MergePairs

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
# 32 patches, so that slow code may look at all pairs.
SMALL = {"vit_demo": {"frames": 4, "size": 32}, "video_swin_demo": {}}
SQUARE = ("vit_demo", "timesformer_joint_demo", "timesformer_demo")


def model_and_clips(name):
    backbone = randomise(build_backbone(name, 7, SMALL.get(name, {"frames": 2})))
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    return backbone, torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


class MergeThenDrop(MergePairs):
    """Merges pairs at the first place, and drops every third token at the last."""

    def reduce(self, place, state):
        return KeepEvery(3).reduce(place, state) if place == self.at[-1] else super().reduce(place, state)


REDUCERS: dict[str, Reducer] = {
    "tome": ToMe(r=3),
    "proportional": ToMe(r=7, proportional=True),
    "from the start": MergePairs((Place("embedding"), Place("layer", 1), Place("attention", 3))),
    "some dropped later": MergeThenDrop((Place("attention", 0), Place("layer", 1), Place("layer", 2))),
}


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("reducer", REDUCERS.values(), ids=REDUCERS)
@torch.no_grad()
def test_rollout_is_the_product_of_whole_matrices_over_patches(name, reducer):
    """Every site as one matrix over class token and patches, the patches of a token alike in it.

    A patch's row is its token's; what a token receives is spread over its patches evenly. So merging is no step of its
    own here, and shares travel through it by what a matrix before it says of the parts.
    """
    backbone, clips = model_and_clips(name)
    found = rollout(backbone, clips, reducer).values
    for clip in range(2):
        share = by_whole_matrices(backbone, clips, reducer, clip)
        torch.testing.assert_close(found[clip].flatten(), share[1:], **CLOSE)
        torch.testing.assert_close(share.sum(), torch.tensor(1.0))


def by_whole_matrices(backbone: Backbone, clips: torch.Tensor, reducer: Reducer, clip: int) -> torch.Tensor:
    observer = Observer(attention=True)
    state = backbone.embed(clips, reducer)
    count = state.grid[0] * state.grid[1] * state.grid[2]
    total = torch.eye(1 + count)
    for step in run_steps(backbone, state, observer=observer, reducer=reducer):
        if step.kind == "attention":
            total = site_matrix(observer.sites[step.index, step.site], parts(step.before, clip), count, clip) @ total
        state = step.after
    if backbone.reads_class_tokens:
        return total[0]
    read = [slot for slots in parts(state, clip).values() for slot in slots]
    return total[read].mean(dim=0)


def parts(state, clip: int) -> dict[int, list[int]]:
    """Slots of the patches that each token is made of, by its cell."""
    cells = state.cell_numbers()[clip].tolist()
    if state.kept is None or state.kept.owner is None:
        return {cell: [cell + 1] for cell in cells if cell >= 0}
    owner = state.kept.owner[clip].tolist()
    return {cell: [c + 1 for c, i in enumerate(owner) if i == own] for own, cell in enumerate(cells)}


def site_matrix(seen, slots_of: dict[int, list[int]], count: int, clip: int) -> torch.Tensor:
    """0.5 A + 0.5 I over class token and patches, in which a token's residual keeps its patches what they are together.

    The identity on a token's patches is their mean: they cannot be told apart while they are one.
    """
    layout, weights = seen.layout, seen.attention[clip].mean(dim=1)  # (G, n, n)
    cells = layout.cells.expand(len(seen.attention), -1, -1)[clip].tolist()
    copies = None if layout.copies is None else layout.copies.expand(len(seen.attention), -1, -1)[clip]
    matrix, standing, same = torch.zeros(1 + count, 1 + count), torch.zeros(1 + count), torch.eye(1 + count)
    slots = {-2: [0], **slots_of}
    for group, row_cells in enumerate(cells):
        for row, cell in enumerate(row_cells):
            if copies is not None and copies[group, row]:
                continue
            for slot in slots[cell]:
                standing[slot] += 1
                for column, other in enumerate(row_cells):
                    for to in slots[other]:
                        matrix[slot, to] += weights[group, row, column] / len(slots[other])
    for own in slots_of.values():
        for slot in own:
            same[slot] = 0
            same[slot, own] = 1 / len(own)
    there = standing > 0
    matrix[there] /= standing[there].unsqueeze(1)
    matrix[~there] = same[~there]
    return 0.5 * matrix + 0.5 * same


@torch.no_grad()
def test_shares_go_back_to_the_parts_by_hand():
    """One layer whose only merge stands after its attention: the parts have what the last state's token is made of."""
    backbone, clips = model_and_clips("vit_demo")
    backbone = backbone.without(range(1, backbone.depth))
    reducer = MergePairs((Place("attention", 0),))
    plain, merged = rollout(backbone, clips), rollout(backbone, clips, reducer)
    torch.testing.assert_close(merged.values, plain.values, **CLOSE)  # every patch still counts once
    dropping = rollout(backbone, clips, KeepEvery(2, (Place("attention", 0),)))
    assert (dropping.values - plain.values).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["vit_demo", "timesformer_joint_demo"])
@torch.no_grad()
def test_maps_are_those_of_single_tokens_shared_among_their_patches(name):
    backbone, clips = model_and_clips(name)
    heads = [Unit(3, "attention", 0), Unit(5, "attention", 2)]
    for reducer in REDUCERS.values():
        found = head_maps(backbone, clips, heads, reducer)
        observer = Observer(attention=True)
        states = {}
        for step in run_steps(backbone, backbone.embed(clips, reducer), observer=observer, reducer=reducer):
            if step.kind == "attention":
                states[step.index] = step.before
        for head in heads:
            state, weights = states[head.layer], observer.sites[head.layer, "attention"].attention[:, 0, head.head]
            for clip in range(2):
                own = parts(state, clip)
                expected = torch.zeros(found[head].values[clip].numel())
                sizes = [len(slots) for slots in own.values()]
                if state.class_tokens:
                    received = weights[clip, 0, 1:]
                else:
                    received = sum(s * row for s, row in zip(sizes, weights[clip], strict=True)) / sum(sizes)
                for value, slots in zip(received, own.values(), strict=True):
                    for slot in slots:
                        expected[slot - 1] += value / len(slots)
                torch.testing.assert_close(found[head].values[clip].flatten(), expected, **CLOSE)


@pytest.mark.parametrize("name", SQUARE)
@torch.no_grad()
def test_merged_equals_have_the_maps_of_the_dense_model(name, monkeypatch):
    """Pairs alike to the bit, merged at the start and counted twice: maps and rollout are those of the dense model."""
    backbone, clips = model_and_clips(name)
    plain = type(backbone).tokenize

    def alike(self, pixels):
        state = plain(self, pixels)
        rows = torch.arange(state.patches) // 2 * 2 + state.class_tokens
        return state.with_tokens(state.tokens[:, torch.cat((torch.arange(state.class_tokens), rows))])

    monkeypatch.setattr(type(backbone), "tokenize", alike)
    merged = MergePairs((Place("embedding"),))
    torch.testing.assert_close(rollout(backbone, clips, merged).values, rollout(backbone, clips).values, **CLOSE)
    heads = backbone.units("heads")[:: 5 if name == "timesformer_demo" else 3]
    dense, found = head_maps(backbone, clips, heads), head_maps(backbone, clips, heads, merged)
    for head in heads:
        torch.testing.assert_close(found[head].values, dense[head].values, **CLOSE)


@pytest.mark.parametrize("name", ["timesformer_demo", "video_swin_demo"])
@torch.no_grad()
def test_maps_of_filled_families_keep_their_mass(name):
    """Spatial: 1 per frame less the class token's; windows: 1 each. Every cell whose token is merged has its part."""
    backbone, clips = model_and_clips(name)
    reducer = ToMe(r=7)
    site = backbone.layers[1].sites[-1].name
    head = Unit(1, site, 0)
    observer = Observer(attention=True, layers={1})
    [found] = head_maps(backbone, clips, [head], reducer).values()
    backbone(clips, reducer=reducer, observer=observer)
    seen = observer.sites[1, site]
    into = seen.layout.merged_into
    values = found.values.flatten(1)
    assert (values > 0).all()
    for clip in range(2):
        for cell in range(0, values.shape[1], 5):
            assert values[clip, cell] == values[clip, into[clip, cell]]
    if name == "timesformer_demo":
        received = seen.attention[:, :, 0, 0, 1:].sum(dim=(1, 2))
        torch.testing.assert_close(values.sum(dim=1), received, **CLOSE)
    else:
        windows = seen.attention.shape[1]
        torch.testing.assert_close(values.sum(dim=1), torch.full((2,), float(windows)), **CLOSE)


def test_a_reducer_of_this_file_is_what_it_says():
    backbone, clips = model_and_clips("vit_demo")
    with torch.no_grad():
        state = backbone.run(backbone.embed(clips), 0, 3, reducer=REDUCERS["some dropped later"])
    assert state.patches == 3  # of 32: 16, 8, then a third
    assert (state.kept.owner < 0).sum(dim=1).tolist() == [32 - 4 * 3] * 2
