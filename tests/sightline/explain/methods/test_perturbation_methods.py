"""Methods that differentiate by pixels or take parts of the clip away: planted classifiers, captum's answers, sums."""

import builtins

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients

from sightline.backbones import build_backbone, run_steps
from sightline.explain.attribution.method import attribute
from sightline.explain.attribution.registry import read_method
from sightline.explain.attribution.scores import class_probability
from sightline.explain.attribution.tubelets import base_clips, tubelet_ids
from sightline.explain.methods import surrogates
from sightline.explain.methods.grad_cam import GradCAM
from sightline.explain.methods.occlusion import Occlusion, box_masks
from sightline.explain.methods.token_sampling import KeepGiven, activations, centres
from tests.sightline.explain.reading import CELL, GRID, STRAIGHT, THROUGH_ATTENTION, clips, reader, where

ONES = torch.ones(2, dtype=torch.int64)
ANY_WAY = ["grad_cam", "integrated_gradients", "occlusion", "token_sampling:subsets=random", "kernel_shap:samples=150"]


@pytest.mark.parametrize("how", [STRAIGHT, THROUGH_ATTENTION])
@pytest.mark.parametrize("asked", [*ANY_WAY, "lime:samples=150", "occlusion:base=freeze"])
def test_the_cell_that_is_read_is_found_however_it_is_read(how, asked):
    found = attribute(read_method(asked), reader(how), clips(2), ONES).cells.at(GRID).values
    # A frozen frame shows what the one before it does: without the cell, or in frame 2 with it, the same brightness.
    assert where(found) == [CELL, CELL]


@pytest.mark.parametrize("asked", ["raw", "rollout", "chefer", "legrad", "head", "staa:enhanced=false"])
def test_attention_finds_what_is_read_through_attention_alone(asked):
    through = attribute(read_method(asked), reader(THROUGH_ATTENTION), clips(2), ONES).cells.values
    straight = attribute(read_method(asked), reader(STRAIGHT), clips(2), ONES).cells.values
    assert where(through) == [CELL, CELL]
    assert float(straight.max() - straight.min()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("how", [STRAIGHT, THROUGH_ATTENTION])
def test_what_is_read_is_all_of_the_attribution(how):
    """The exact methods give the cell everything, and the other cells nothing."""
    for asked in ("integrated_gradients", "occlusion"):
        values = attribute(read_method(asked), reader(how), clips(2), ONES).cells.at(GRID).values
        assert (values[:, CELL[0], CELL[1], CELL[2]] / values.abs().sum(dim=(1, 2, 3))).min() > 0.999


def test_integrated_gradients_are_captums_and_complete():
    torch.manual_seed(0)
    backbone = build_backbone("vit_demo", 4, {"frames": 4, "size": 32, "patch": [2, 8, 8]}).eval()
    shown = torch.rand(2, 3, 4, 32, 32)
    targets, base = torch.tensor([1, 3]), base_clips(shown, "blur")
    values = attribute(read_method("integrated_gradients:steps=20"), backbone, shown, targets).cells.values

    def scores(pixels):
        return backbone(pixels).softmax(dim=1)

    expected = IntegratedGradients(scores).attribute(shown, base, targets, n_steps=20, method="riemann_middle")
    torch.testing.assert_close(values, expected.sum(dim=1).float(), rtol=1e-3, atol=1e-6)
    whole = class_probability(backbone, shown, targets) - class_probability(backbone, base, targets)
    torch.testing.assert_close(values.sum(dim=(1, 2, 3)).double(), whole, rtol=1e-2, atol=1e-5)


def test_occlusion_is_captums():
    torch.manual_seed(0)
    backbone = build_backbone("vit_demo", 4, {"frames": 4, "size": 32, "patch": [2, 8, 8]}).eval()
    shown, target = torch.rand(1, 3, 4, 32, 32), torch.tensor([2])
    ids = tubelet_ids((2, 4, 4), backbone)[None, None]

    def scores(pixels):
        return class_probability(backbone, pixels, target)

    expected = FeatureAblation(scores).attribute(shown, base_clips(shown, "blur"), feature_mask=ids)
    found = attribute(Occlusion(), backbone, shown, target).cells.pixels()
    torch.testing.assert_close(found[0], expected[0, 0].float(), rtol=1e-4, atol=1e-7)


def test_boxes_reach_the_ends_and_share_what_they_cover():
    masks = box_masks((1, 3, 4), (1, 2, 2), 2)
    assert masks.view(-1, 3, 4).int().tolist() == [
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
    ]
    assert box_masks((2, 2, 2), (3, 3, 3), 1).all()  # a box larger than the clip
    with pytest.raises(ValueError, match="got a stride of 3 of boxes"):
        Occlusion(frames=2, size=2, stride=3)


def test_grad_cam_by_hand():
    """On a straight reader the last layer's weights are those of one channel: the map is its positive part."""
    backbone, shown = reader(STRAIGHT), clips(1)
    with torch.no_grad():
        entering = [step.before for step in run_steps(backbone, backbone.embed(shown)) if step.site][-1]
    tokens = entering.tokens[0]
    leaf = tokens.clone().requires_grad_()
    state = entering.with_tokens(leaf[None])
    score = backbone.classify(backbone.run(state, 1))[0, 1]
    weights = torch.autograd.grad(score, leaf)[0].mean(dim=0)
    expected = (tokens @ weights).clamp(min=0)
    found = attribute(GradCAM(), backbone, shown, torch.tensor([1])).cells.values.flatten()
    torch.testing.assert_close(found, expected)
    assert GradCAM(layer=0).attribute(backbone, shown, torch.tensor([1])).passes.backward == 1


def test_kernel_shap_of_an_additive_score_is_exact(monkeypatch):
    """Of a score that is a sum over tubelets, Shapley values are its terms."""
    backbone = reader(STRAIGHT)
    ids = tubelet_ids(GRID, backbone)
    terms = torch.linspace(-1, 1, 64, dtype=torch.float64)
    shown = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    base = base_clips(shown, "blur")

    def additive(_backbone, pixels, _targets):
        there = (pixels - base).abs().amax(dim=1) > 0  # (N, T, H, W)
        sums = torch.zeros(len(pixels), 64, dtype=torch.float64)
        sums.index_add_(1, ids.flatten(), there.flatten(1).double())
        return (sums > 0).double() @ terms

    monkeypatch.setattr(surrogates, "class_probability", additive)
    found = attribute(read_method("kernel_shap:samples=400"), backbone, shown, torch.tensor([1])).cells.values
    # captum's regression runs in single precision, with weights of a million at both ends.
    torch.testing.assert_close(found.flatten().double(), terms, rtol=0, atol=5e-3)


def test_lime_counts_masks_that_keep_most():
    whole, half, none = (torch.tensor([[float(i < n) for i in range(4)]]) for n in (4, 2, 0))
    found = [float(surrogates.likeness(torch.zeros(1), torch.zeros(1), mask)) for mask in (whole, half, none)]
    assert found[0] == 1
    assert found[1] == pytest.approx(2.718281828 ** (-((1 - 0.5**0.5) ** 2) / 0.0625 / 2))
    assert found[2] == pytest.approx(2.718281828 ** (-8))


def test_a_missing_library_names_the_extra(monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr(surrogates.importlib, "import_module", lambda name: real("no_such_" + name))
    with pytest.raises(
        ValueError, match=r"need no_such_sklearn, which is not installed: pip install 'sightline\[explain"
    ):
        read_method("lime").check(reader(STRAIGHT))


def test_tokens_are_really_removed():
    backbone, shown = reader(STRAIGHT), clips(1)
    reducer = KeepGiven(cells=torch.tensor([[0, 5, 63]]))
    state = backbone.embed(shown, reducer)
    assert state.tokens.shape[1] == 3
    assert state.cell_numbers().tolist() == [[0, 5, 63]]


def test_centres_of_k_means():
    maps = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    found = centres(maps, 2, torch.Generator().manual_seed(0))
    assert torch.allclose(found[found[:, 0].argsort()], torch.tensor([[0.05, 0.95], [0.95, 0.05]]))
    assert len(centres(maps, 6, torch.Generator().manual_seed(0))) == 6


def test_activations_are_scaled_channels():
    torch.manual_seed(0)
    backbone = build_backbone("vit_demo", 4, {"frames": 4, "size": 32, "patch": [2, 8, 8]}).eval()
    maps = activations(backbone, torch.rand(1, 3, 4, 32, 32))
    assert maps.shape == (7 * backbone.config.width, 32)
    assert float(maps.mean(dim=1).abs().max()) < 1e-5
    assert torch.allclose(maps.std(dim=1, correction=0), torch.tensor(1.0), atol=1e-3)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("occlusion:base=black", "'blur' or 'freeze', got 'black'"),
        ("integrated_gradients:steps=0", "at least one step, got 0"),
        ("kernel_shap:samples=2", "kernel_shap takes at least 3 samples, got 2"),
        ("token_sampling:subsets=all", "clustered or random subsets, got 'all'"),
        ("token_sampling:kept=1.0", "a share between 0 and 1, got 128 and 1"),
    ],
)
def test_options_that_cannot_be_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        read_method(asked)
