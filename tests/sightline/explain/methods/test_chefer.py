"""Generic relevance against the whole product of matrices, and by hand."""

import pytest
import torch

from sightline.backbones import Observer, build_backbone
from sightline.backbones.contract.layout import AttentionLayout
from sightline.explain.attribution.method import attribute
from sightline.explain.methods.attention_gradients import SiteGradient
from sightline.explain.methods.chefer import GenericRelevance, _finer, _through
from sightline.explain.methods.legrad import LeGrad


def observed(backbone, clips, target):
    """Attention and its gradient of every site, by name; slow and obvious."""
    observer = Observer(attention=True)
    state = backbone.embed(clips)
    state = state.with_tokens(state.tokens.detach().requires_grad_())
    score = backbone.classify(backbone.run(state, observer=observer))[:, target].sum()
    return {
        name: (seen, torch.autograd.grad(score, seen.attention, retain_graph=True, allow_unused=True)[0])
        for name, seen in observer.sites.items()
    }


@pytest.mark.parametrize(("name", "class_tokens"), [("vit_demo", 0), ("timesformer_joint_demo", 1)])
def test_the_row_is_that_of_the_whole_product(name, class_tokens):
    torch.manual_seed(0)
    backbone = build_backbone(name, 4, {"frames": 8, "size": 64}).eval().double()
    clips = torch.rand(2, 3, 8, 64, 64, dtype=torch.float64)
    sites = observed(backbone, clips, 1)
    n = sites[0, "attention"][0].attention.shape[-1]
    relevance = torch.eye(n, dtype=torch.float64).repeat(2, 1, 1)
    for layer in range(backbone.depth):
        seen, gradient = sites[layer, "attention"]
        mean = (seen.attention * gradient).clamp(min=0).mean(dim=2)[:, 0]
        relevance = relevance + mean @ relevance
    row = relevance[:, 0, 1:] if class_tokens else relevance.mean(dim=1)
    found = attribute(GenericRelevance(), backbone, clips, torch.tensor([1, 1])).cells.values.flatten(1)
    torch.testing.assert_close(found, row.float(), rtol=1e-5, atol=1e-9)


def test_divided_attention_is_a_product_of_two_steps_a_layer():
    torch.manual_seed(0)
    backbone = build_backbone("timesformer_demo", 4, {"frames": 4, "size": 32}).eval().double()
    clips = torch.rand(1, 3, 4, 32, 32, dtype=torch.float64)
    frames, places = 4, 4
    n = 1 + frames * places
    relevance = torch.eye(n, dtype=torch.float64)
    sites = observed(backbone, clips, 2)
    for layer in range(backbone.depth):
        seen, gradient = sites[layer, "temporal"]
        mean = (seen.attention * gradient).clamp(min=0).mean(dim=2)[0]  # (places, frames, frames)
        full = torch.zeros(n, n, dtype=torch.float64)
        for place in range(places):
            tokens = 1 + torch.arange(frames) * places + place
            full[tokens[:, None], tokens[None]] = mean[place]
        relevance = relevance + full @ relevance
        seen, gradient = sites[layer, "spatial"]
        mean = (seen.attention * gradient).clamp(min=0).mean(dim=2)[0]  # (frames, 1 + places, 1 + places)
        full = torch.zeros(n, n, dtype=torch.float64)
        for frame in range(frames):
            tokens = torch.cat((torch.zeros(1, dtype=torch.int64), 1 + frame * places + torch.arange(places)))
            own = mean[frame].clone()
            own[0] /= frames  # the class token is the mean of its copies
            full[tokens[:, None], tokens[None]] += own
        relevance = relevance + full @ relevance
    found = attribute(GenericRelevance(), backbone, clips, torch.tensor([2])).cells.values.flatten()
    torch.testing.assert_close(found, relevance[0, 1:].float(), rtol=1e-5, atol=1e-9)


def site(attention, gradient, cells, before, after, grid, class_tokens=0):
    layout = AttentionLayout(grid, (1, 1, 1), torch.tensor(cells), torch.ones(1, 1, attention.shape[3]))
    return SiteGradient(attention, gradient, layout, before, after, class_tokens)


def test_one_site_by_hand():
    """Two tokens, one head: A' = [[.1, 0], [.2, .3]] where dA is negative at the second place."""
    attention = torch.tensor([[0.1, 0.9], [0.4, 0.6]]).view(1, 1, 1, 2, 2)
    gradient = torch.tensor([[1.0, -1.0], [0.5, 0.5]]).view(1, 1, 1, 2, 2)
    one = site(attention, gradient, [[[0, 1]]], (1, 1, 2), (1, 1, 2), (1, 1, 2))
    row = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    # r + r A' = [.5 + .5 * .1 + .5 * .2, .5 + .5 * 0 + .5 * .3]
    assert _through(row, one)[0].tolist() == pytest.approx([0, 0, 0.65, 0.65])


def test_what_lies_nowhere_gives_and_takes_nothing():
    attention = torch.full((1, 1, 1, 2, 2), 0.5)
    one = site(attention, torch.ones_like(attention), [[[0, -1]]], (1, 1, 1), (1, 1, 1), (1, 1, 1))
    found = _through(torch.tensor([[0.0, 0.0, 1.0]]), one)
    assert found[0].tolist() == pytest.approx([0, 0, 1.5])


def test_coarse_cells_are_shared_out():
    row = torch.tensor([[7.0, 3.0, 4.0, 8.0]])  # class token, nowhere, and 1x1x2 cells over 1x2x4
    assert _finer(row, (1, 1, 2), (1, 2, 4))[0].tolist() == [7, 3, 1, 1, 2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["video_swin_demo", "mvit_demo"])
def test_hierarchies_keep_what_was_given_out(name):
    """No row is lost or doubled between grids: with A' = 0 the classifier's row is spread evenly, in sum 1."""
    torch.manual_seed(0)
    backbone = build_backbone(name, 4, {"frames": 8, "size": 64}).eval()
    classifier = [backbone.state_dict()[key] for key in backbone.classifier_keys()]
    with torch.no_grad():
        for tensor in classifier:
            tensor.zero_()  # no class depends on anything: all gradients are 0
    found = attribute(GenericRelevance(), backbone, torch.rand(1, 3, 8, 64, 64), torch.tensor([0])).cells.values
    total = 0 if backbone.reads_class_tokens else 1
    assert float(found.sum()) == pytest.approx(total, abs=1e-5)
    assert float(found.max() - found.min()) == pytest.approx(0, abs=1e-7)


def test_legrad_against_the_slow_way():
    torch.manual_seed(0)
    backbone = build_backbone("vit_demo", 4, {"frames": 8, "size": 64}).eval().double()
    clips = torch.rand(1, 3, 8, 64, 64, dtype=torch.float64)
    total = torch.zeros(4 * 8 * 8, dtype=torch.float64)
    for layer in range(backbone.depth):
        observer = Observer(attention=True, layers={layer})
        state = backbone.embed(clips)
        state = state.with_tokens(state.tokens.detach().requires_grad_())
        score = backbone.classify(backbone.run(state, 0, layer + 1, observer=observer))[0, 3]
        seen = observer.sites[layer, "attention"].attention
        total += torch.autograd.grad(score, seen)[0].clamp(min=0).mean(dim=(0, 1, 2, 3))
    found = attribute(LeGrad(), backbone, clips, torch.tensor([3])).cells.values.flatten()
    torch.testing.assert_close(found, total.float(), rtol=1e-5, atol=1e-12)


def test_legrad_reads_the_layers_whose_tokens_fit_the_classifier():
    backbone = build_backbone("video_swin_demo", 4, {"frames": 8, "size": 64}).eval()
    last = [info.index for info in backbone.layers if info.stage == backbone.layers[-1].stage]
    found = attribute(LeGrad(), backbone, torch.rand(1, 3, 8, 64, 64), torch.tensor([0]))
    assert found.passes.backward == pytest.approx(len(last) / len(backbone.layers))
