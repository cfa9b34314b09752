"""What every registered reducer must do in every registered family."""

import copy
import dataclasses

import pytest
import torch

from sightline.backbones import Backbone
from sightline.export.counting import count_cost
from sightline.tokens import REDUCERS, TokenReduction, kept_share, trace
from sightline.tokens.equal_kept import at_kept
from tests.conftest import DEMO_VARIANTS, randomise, with_interpreters

# Sums of some hundred float32 products in another order; logits are of order 1.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
AT_PLACES = [n for n, kind in REDUCERS.items() if "at" in {field.name for field in dataclasses.fields(kind)}]
REDUCTIONS = {
    **{name: TokenReduction.of(name) for name in REDUCERS},
    "rlt_share": TokenReduction.of("rlt", {"fixed": "share"}),
    "ia_red2_threshold": TokenReduction.of("ia_red2", {"fixed": "threshold"}),
    **{f"{name}_places": TokenReduction.of(name, {"at": "places"}) for name in AT_PLACES},
}
# In families of several stages these places are their own; in the others they are run when there is time.
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name.endswith("_places") else ()) for name in REDUCTIONS]


@pytest.fixture(scope="module", params=DEMO_VARIANTS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    found = randomise(with_interpreters(request.param, 5, groups=2, motion=True))
    if found.dropped_tokens == "refused":
        pytest.skip(f"{found.family} refuses dropped tokens")
    return found


@pytest.fixture(scope="module")
def clips(backbone: Backbone) -> torch.Tensor:
    """Three still pictures, in which more and more moves."""
    spec, generator = backbone.input_spec, torch.Generator().manual_seed(4)
    shape = (3, 3, spec.frames, spec.height, spec.width)
    moving = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    found = moving[:, :, :1].expand(shape).clone()
    for clip, new, width in zip(found, moving, (16, 32, 56), strict=True):
        clip[:, :, 8 : 8 + width, :width] = new[:, :, 8 : 8 + width, :width]
    return found


@pytest.fixture(params=PARAMS)
def reduction(request: pytest.FixtureRequest, backbone: Backbone) -> TokenReduction:
    found = REDUCTIONS[request.param]
    if found.build().needs_interpreters and backbone.reducer is None:
        pytest.skip(f"{backbone.family} cannot hold interpreters")
    return found


@torch.no_grad()
def test_a_clip_is_reduced_alike_in_every_batch_and_form(backbone, clips, reduction):
    reducer = reduction.build()
    together, logits = trace(backbone, clips, reducer), backbone(clips, reducer=reducer)
    assert (logits - backbone(clips)).abs().max() > 1e-4  # it drops something
    shown = clips[[2, 1]].float() / 255
    again = trace(backbone, shown, reducer)
    alone = trace(backbone, clips[:1], reducer)
    for one, two, three in zip(together, again, alone, strict=True):
        rows = zip(one.cells[[2, 1, 0]], (*two.cells, *three.cells), strict=True)
        assert all(torch.equal(row[row >= 0], other[other >= 0]) for row, other in rows)
    torch.testing.assert_close(backbone(shown, reducer=reducer), logits[[2, 1]], **TOLERANCE)


@torch.no_grad()
def test_counts_are_equal_where_that_is_said(backbone, clips, reduction):
    reducer = reduction.build()
    for at in trace(backbone, clips, reducer):
        assert at.after.min() >= 1
        assert (at.after <= at.before).all()
        if reducer.equal_counts:
            assert at.after.unique().numel() == 1
    share = kept_share(backbone, clips, reducer)
    assert (share < 1).any()
    if not reducer.equal_counts:
        assert share.unique().numel() > 1, "the clips of this test must keep unequal numbers"


@torch.no_grad()
def test_runs_in_parts_agree_and_leave_nothing_behind(backbone, clips, reduction):
    reducer, logits = reduction.build(), backbone(clips)
    whole = backbone(clips, reducer=reducer)
    for stop in (1, backbone.depth - 1):
        state = backbone.run(backbone.embed(clips, reducer), 0, stop, reducer=reducer)
        parts = backbone.classify(backbone.run(state, stop, reducer=reducer))
        torch.testing.assert_close(parts, whole, rtol=0, atol=0)
    torch.testing.assert_close(backbone.readout(backbone.embed(clips, reducer), reducer=reducer), whole, **TOLERANCE)
    assert torch.equal(backbone(clips), logits)


def test_it_can_be_trained_with(backbone, clips, reduction):
    model = copy.deepcopy(backbone).train()
    model(clips, reducer=reduction.build()).square().sum().backward()
    trained = [p for name, p in model.named_parameters() if not name.startswith("reducer.")]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float64, marks=pytest.mark.slow)])
def test_it_works_in_half_and_in_double_precision(backbone, clips, reduction, dtype):
    reducer, one = reduction.build(), clips[:1]
    model = copy.deepcopy(backbone).to(dtype)
    logits = model(one, reducer=reducer)
    assert logits.dtype == dtype
    assert torch.isfinite(logits).all()
    if reducer.needs_interpreters and not reducer.equal_counts:
        return  # what lies near the threshold falls to one side or the other by rounding
    found, expected = trace(model, one, reducer), trace(backbone, one, reducer)
    assert [at.after.tolist() for at in found] == [at.after.tolist() for at in expected]


@pytest.mark.slow
def test_its_cost_is_counted(backbone, reduction):
    dense = count_cost(backbone)
    least = count_cost(backbone, reduction.build().amounts(backbone)[-1])
    assert least.macs < dense.macs
    assert least.params == dense.params


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kept", [0.9, 0.7, 0.5, 0.25])
def test_a_share_is_met_or_the_nearest_told(backbone, clips, reduction, kept):
    """Within what the next amounts on both sides keep."""
    amounts = reduction.build().amounts(backbone)
    found, share = at_kept(reduction, backbone, kept, clips)
    chosen = amounts.index(found.build())
    assert share == pytest.approx(kept_share(backbone, clips, amounts[chosen]).mean().item(), abs=1e-6)
    for other in (chosen - 1, chosen + 1):
        if 0 <= other < len(amounts):
            beside = kept_share(backbone, clips, amounts[other]).mean().item()
            assert abs(share - kept) <= abs(beside - kept) + 1e-6


class Reduced(torch.nn.Module):
    """A model that runs with a reducer, as a program holds it."""

    def __init__(self, backbone, reducer):
        super().__init__()
        self.backbone, self.reducer = backbone, reducer

    def forward(self, clips):
        return self.backbone(clips, reducer=self.reducer)


@pytest.mark.slow
@torch.no_grad()
def test_a_traced_program_keeps_the_same(backbone, clips, reduction):
    """Also where many scores are equal, as in these clips for RLT."""
    if reduction.name == "random" or not reduction.build().equal_counts:
        pytest.skip("what it keeps is not worked out from tensors of fixed shapes alone")
    reducer = TokenReduction.of(reduction.name, {**dict(reduction.options), "attention": "filled"}).build()
    program = torch.export.export(Reduced(backbone, reducer), (clips[1:],), strict=False).module()
    for shown in (clips[1:], clips[:2]):
        torch.testing.assert_close(program(shown), backbone(shown, reducer=reducer), **TOLERANCE)
