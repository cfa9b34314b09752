"""ToMe against a slow implementation that merges token by token in double precision, and by hand."""

import copy
import math
import shutil

import pytest
import torch

from sightline.backbones import Place, TokenState, build_backbone
from sightline.export.counting import count_cost
from sightline.tokens import TokenReduction, ToMe, kept_share, trace
from sightline.tokens.equal_kept import at_kept
from sightline.tokens.matching import matched, most_that_can_merge
from tests.conftest import randomise

# 2 frames of 4x4 patches.
SMALL = {"vit_demo": {"frames": 4, "size": 32}, "timesformer_joint_demo": {"frames": 2, "depth": 4}}


def model_and_clips(name, options=None):
    backbone = randomise(build_backbone(name, 7, SMALL.get(name, {}) if options is None else options))
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    return backbone, torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


class Token:
    def __init__(self, value: torch.Tensor, patches: list[int]) -> None:
        self.value, self.patches = value, patches


def merge_one_by_one(tokens: list[Token], keys: list[torch.Tensor], r: int) -> list[Token]:
    """One place of one clip, from the paper's five steps."""
    first, second = list(range(0, len(tokens), 2)), list(range(1, len(tokens), 2))
    edges = []
    for i in first:
        likeness = [float(keys[i] @ keys[j] / (keys[i].norm() * keys[j].norm())) for j in second]
        best = max(range(len(second)), key=lambda place: (likeness[place], -place), default=None)
        if best is not None:
            edges.append((likeness[best], i, second[best]))
    chosen = sorted(edges, key=lambda edge: (-edge[0], edge[1]))[: min(r, len(tokens) // 2)]
    for _, i, j in chosen:
        sizes = len(tokens[i].patches), len(tokens[j].patches)
        value = (tokens[i].value * sizes[0] + tokens[j].value * sizes[1]) / sum(sizes)
        tokens[j] = Token(value, tokens[j].patches + tokens[i].patches)
    gone = {i for _, i, _ in chosen}
    return [tokens[i] for i in first if i not in gone] + [tokens[j] for j in second]


def model_one_by_one(backbone, clip: torch.Tensor, rs: list[int], proportional: bool) -> tuple[torch.Tensor, list]:
    """The logits of one clip, and the patches of every token after each layer."""
    state = backbone.embed(clip[None])
    classes = [Token(value, [-1]) for value in state.tokens[0, : state.class_tokens]]
    patches = [Token(value, [cell]) for cell, value in enumerate(state.tokens[0, state.class_tokens :])]
    partition = []
    for layer, r in zip(backbone.layer_modules().values(), rs, strict=True):
        tokens = classes + patches
        x = torch.stack([token.value for token in tokens])
        h, d = len(layer.attn.heads), layer.attn.head_width
        q, k, v = layer.attn.project_in(layer.norm1(x)).unflatten(1, (3, h, d)).unbind(1)
        logits = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(d)
        if proportional:
            logits = logits + torch.tensor([math.log(len(token.patches)) for token in tokens], dtype=x.dtype)
        x = x + layer.attn.proj(torch.einsum("hqk,khd->qhd", logits.softmax(dim=2), v).flatten(1))
        for token, value in zip(tokens, x, strict=True):
            token.value = value
        patches = merge_one_by_one(patches, list(k.mean(dim=1)[len(classes) :]), r)
        for token in classes + patches:
            token.value = token.value + layer.mlp(layer.norm2(token.value))
        partition.append([token.patches for token in patches])
    if classes:
        return backbone.head(backbone.norm(classes[0].value)), partition
    count = sum(len(token.patches) for token in patches)
    mean = sum(token.value * len(token.patches) for token in patches) / count
    return backbone.head(backbone.fc_norm(mean)), partition


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "reducer",
    [ToMe(r=3), ToMe(r=5, proportional=True), ToMe(r=40), ToMe(r=3, schedule="decreasing", proportional=True)],
    ids=["plain", "proportional", "half at every place", "decreasing"],
)
@torch.no_grad()
def test_models_with_joint_attention_are_those_that_merge_one_by_one(name, reducer):
    backbone, clips = model_and_clips(name)
    found = backbone(clips, reducer=reducer)
    traced = trace(backbone, clips, reducer)
    exact, _ = model_and_clips(name)
    exact.double()
    depth = backbone.depth
    rs = [reducer.r] * depth
    if reducer.schedule == "decreasing":
        rs = {4: [6, 4, 2, 0], 6: [6, 5, 4, 2, 1, 0]}[depth]  # of 6, 4.8, 3.6, 2.4, 1.2, 0
    for b in range(2):
        logits, partition = model_one_by_one(exact, clips[b].double() / 255, rs, reducer.proportional)
        # Float32 against float64 over six layers; logits are of order 1.
        torch.testing.assert_close(found[b].double(), logits, rtol=1e-4, atol=1e-5)
        for at in traced:
            tokens = partition[at.place.index]
            kept = at.cells[b].tolist()
            assert len(kept) == len(tokens)
            for cell, patches in zip(kept, tokens, strict=True):
                assert cell in patches
                assert sorted(patches) == (at.merged_into[b] == cell).nonzero().flatten().tolist()


def frame_by_frame(cells: list[int], keys: torch.Tensor, places: int, r: int) -> set[tuple[int, int]]:
    """Which cells merge into which, where only patches of the same frame may."""
    frames: dict[int, list[int]] = {}
    for i, cell in enumerate(cells):
        frames.setdefault(cell // places, []).append(i)
    edges = []
    for members in frames.values():
        for i in members[::2]:
            likeness = {j: torch.cosine_similarity(keys[i], keys[j], dim=0).item() for j in members[1::2]}
            if likeness:
                best = max(likeness, key=lambda j: likeness[j])
                edges.append((likeness[best], cells[i], cells[best]))
    return {(i, j) for _, i, j in sorted(edges, reverse=True)[:r]}


@pytest.mark.parametrize("block", [2**25, 1])
@torch.no_grad()
def test_families_that_fill_merge_within_frames(block, monkeypatch):
    """Also where frames have unequal numbers by now, and however many are compared at once."""
    monkeypatch.setattr("sightline.tokens.matching._NUMBERS_AT_ONCE", block)
    backbone, _ = model_and_clips("timesformer_demo", {"frames": 3, "depth": 2})
    rng = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 49, 2, 5, generator=rng)
    dense = TokenState(torch.randn(2, 49, 4, generator=rng), (3, 4, 4), 1, features={"keys": keys})
    for r in (4, 15, 23, 100):
        reducer = ToMe(r=r).fitted(backbone)
        state = dense
        for _ in range(4):
            selection = reducer.reduce(Place("attention", 0), state)
            after = selection.of(state, reducer.attending)
            count = min(r, (state.patches - 2) // 2)
            assert after.patches == state.patches - count
            for b in range(2):
                cells = state.cell_numbers()[b].tolist()
                mean_keys = state.keys[b, 1:].double().mean(dim=1)
                merges = frame_by_frame(cells, mean_keys, 16, count)
                into = after.kept.merged_into[b]
                left = set(after.cell_numbers()[b].tolist())
                assert {(cell, into[cell].item()) for cell in cells if cell not in left} == merges
                assert {cell // 16 for cell in left} == {0, 1, 2}
            state = after


@torch.no_grad()
def test_a_coarser_grid_merges_fewer(tiny_swin, tiny_clips):
    # 2x8x8 cells in the first stage, 2x4x4 in the second: a quarter, and the grid is whole again.
    found = trace(tiny_swin, tiny_clips, ToMe(r=20))
    assert [at.before[0].item() for at in found] == [128, 108, 32, 27]
    assert [at.after[0].item() for at in found] == [108, 88, 27, 22]
    # The second stage begins with what layer 1 leaves, whoever runs it.
    state = tiny_swin.run(tiny_swin.embed(tiny_clips), 0, 2)
    later = tiny_swin.run(state, 2, reducer=ToMe(r=20))
    assert later.patches == 22


@torch.no_grad()
def test_pooled_keys_do_not_tell_tokens_apart():
    backbone, clips = model_and_clips("mvit_demo")
    by_keys, by_tokens = (trace(backbone, clips, ToMe(r=9, compared=what)) for what in ("keys", "tokens"))
    assert all(torch.equal(a.cells, b.cells) for a, b in zip(by_keys, by_tokens, strict=True))
    vit, clips = model_and_clips("vit_demo")
    by_keys, by_tokens = (trace(vit, clips, ToMe(r=9, compared=what))[0] for what in ("keys", "tokens"))
    assert not torch.equal(by_keys.cells, by_tokens.cells)


@pytest.mark.parametrize(("name", "in_frames"), [("vit_demo", False), ("timesformer_demo", True)])
@torch.no_grad()
def test_random_partners_are_drawn_whatever_the_clips_show(name, in_frames):
    backbone, clips = model_and_clips(name, {"frames": 4, "size": 32})
    reducer = ToMe(r=7, compared="random")
    first = trace(backbone, clips, reducer)[0]
    own, others = ((clips.roll(1, 0), reducer), (clips, ToMe(r=7, compared="random", seed=1)))
    assert torch.equal(first.merged_into, trace(backbone, *own)[0].merged_into)
    assert not torch.equal(first.merged_into, trace(backbone, *others)[0].merged_into)
    assert torch.equal(first.merged_into[0], first.merged_into[1])
    # Over many draws, every patch of the first set meets every one of the second equally often, in its frame where
    # only those merge: each about 1/n of the time, within five standard deviations.
    state = backbone.embed(clips[:1])
    patches, draws = state.patches, 400
    partners = patches // (2 * state.grid[0]) if in_frames else patches // 2
    met = torch.zeros(patches, patches)
    for seed in range(draws):
        merging = ToMe(r=10**6, compared="random", seed=seed).fitted(backbone)
        into = merging.reduce(Place("attention", 0), state).of(state, merging.attending).kept.merged_into[0]
        met[torch.arange(patches), into] += 1
    gone = met.fill_diagonal_(0)[::2]  # not all go where only patches of a frame merge
    went = gone.sum(dim=1, keepdim=True)
    assert (gone > 0).sum(dim=1).eq(partners).all()
    spread = (went * (1 - 1 / partners) / partners).sqrt()
    assert ((gone - went / partners).abs() / spread)[gone > 0].max() < 5


def test_matching_by_hand():
    # Along a circle: 0 and 3 are alike, 2 and 1 less so; length does not matter.
    angles = torch.tensor([[0.0, 1.0, 1.4, 0.1]])
    metric = torch.stack((angles.cos(), angles.sin()), dim=2) * torch.tensor([1.0, 5.0, 0.1, 2.0]).view(1, 4, 1)
    group = torch.zeros(1, 4, dtype=torch.int64)
    for count, goes, partner in ((1, [0], [3]), (2, [0, 2], [3, 1])):
        found = matched(metric, group, 1, count)
        assert found.first.tolist() == [[True, False, True, False]]
        assert (found.goes.tolist(), found.partner.tolist()) == ([goes], [partner])
    # In two groups, 0 and 2, 1 and 3.
    found = matched(metric, torch.tensor([[0, 1, 0, 1]]), 2, 2)
    assert found.first.tolist() == [[True, True, False, False]]
    assert (found.goes.tolist(), found.partner.tolist()) == ([[1, 0]], [[3, 2]])


def test_at_most_half_merge():
    assert [most_that_can_merge(n, 1) for n in range(5)] == [0, 0, 1, 1, 2]
    for sizes in ([1, 1, 1], [3, 3, 2], [5, 1, 1], [4, 4, 4], [3, 3, 3], [7, 2, 1]):
        assert most_that_can_merge(sum(sizes), len(sizes)) <= sum(size // 2 for size in sizes)
    assert most_that_can_merge(9, 3) == 3  # 3 of 3, 3 and 3
    assert most_that_can_merge(12, 3) == 5  # 5 of 5, 4 and 3


def test_multiply_adds_are_those_of_the_closed_form():
    """Every layer: attention on what enters, matching, the MLP on what is left (export.counting's convention)."""
    backbone = build_backbone("vit_demo", 7)
    spec, config = backbone.input_spec, backbone.config
    t, h, w = config.patch
    cells, d = spec.frames // t * (spec.height // h) * (spec.width // w), config.width
    assert (cells, d, config.depth, config.heads) == (256, 64, 6, 4)
    for r in (0, 10, 33):
        expected, n = cells * d * 3 * t * h * w + 5 * d + d * 7, cells
        for _ in range(config.depth):
            left = n - r
            attention = 4 * n * d * d + 2 * n * n * d + 5 * n * d
            matching = 0 if not r else (n + 1) // 2 * (n // 2) * d // config.heads
            expected += attention + matching + 8 * left * d * d + 5 * left * d
            n = left
        assert count_cost(backbone, ToMe(r=r)).macs == expected
        assert count_cost(backbone, ToMe(r=r, proportional=True)).macs == expected


@torch.no_grad()
def test_a_layer_counts_what_enters_it():
    backbone, clips = model_and_clips("vit_demo")
    share = kept_share(backbone, clips, ToMe(r=3))
    torch.testing.assert_close(share, torch.full((2,), sum(32 - 3 * i for i in range(6)) / 32 / 6))


@pytest.mark.parametrize("name", ["vit_demo", "timesformer_joint_demo", "timesformer_demo", "mvit_demo"])
@torch.no_grad()
def test_amounts_go_from_nothing_to_the_most(name):
    backbone, clips = model_and_clips(name)
    amounts = ToMe(proportional=True).amounts(backbone)
    assert all(amount.proportional for amount in amounts)
    chosen = amounts[:: max(len(amounts) // 6, 1)]
    shares = [kept_share(backbone, clips[:1], amount).item() for amount in chosen]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    most = kept_share(backbone, clips[:1], amounts[-1]).item()
    for beyond in (ToMe(r=10**6), ToMe(r=10**6, schedule="decreasing")):
        [last] = beyond.amounts(backbone)[-1:]
        assert kept_share(backbone, clips[:1], last) == kept_share(backbone, clips[:1], beyond)
    wanted = (1 + most) / 2
    found, share = at_kept(TokenReduction("tome"), backbone, wanted, clips[:1])
    assert abs(share - wanted) < 0.1
    assert found.build() in ToMe().amounts(backbone)


@torch.no_grad()
def test_bad_options_are_refused():
    for options, message in (
        ({"r": -1}, "0 or more, got -1"),
        ({"schedule": "rising"}, "constant or decreasing, got 'rising'"),
        ({"compared": "values"}, "by keys, tokens, random, got 'values'"),
        ({"attention": "some"}, "sparse or filled"),
    ):
        with pytest.raises(ValueError, match=message):
            ToMe(**options)
    backbone, clips = model_and_clips("vit_demo")
    exists = torch.ones(2, 32, dtype=torch.bool)
    exists[1, 9:] = False
    unequal = backbone.embed(clips).select(torch.arange(32).expand(2, -1), exists)
    with pytest.raises(ValueError, match="already dropped"):
        backbone.run(unequal, reducer=ToMe())
    with pytest.raises(ValueError, match="call fitted"):
        ToMe().reduce(Place("attention", 0), unequal)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and g++ is not here")
@pytest.mark.parametrize("name", ["vit_demo", "timesformer_demo"])
@torch.no_grad()
def test_a_compiled_model_merges(name):
    backbone, clips = model_and_clips(name)
    reducer = ToMe(r=4, proportional=True)
    compiled = torch.compile(copy.deepcopy(backbone), fullgraph=True, backend="aot_eager")
    expected = backbone(clips, reducer=reducer)
    torch.testing.assert_close(compiled(clips, reducer=reducer), expected, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
