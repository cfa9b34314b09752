"""IA-RED²: what interpreters score, what is kept of it, and how they travel with a model."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file

from sightline.backbones import NO_TOKEN, Place, TokenState, build_backbone
from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.parts.interpreters import START, Interpreter, Interpreters, InterpretersConfig
from sightline.checkpoints.loading import CheckpointError, load_weights, read_checkpoint
from sightline.checkpoints.trained import model_of
from sightline.export.counting import count_cost
from sightline.export.reading import load_exported, read_description
from sightline.export.writing import export_model
from sightline.pruning.plan import unremoved_plan
from sightline.tokens import IARED2, TokenReduction, kept_share, trace
from sightline.tokens.ia_red2 import above, relative_motion
from tests.conftest import randomise

JOINT = "timesformer_joint_demo"


@pytest.fixture
def model():
    """A model in two groups, whose interpreters see motion."""
    return randomise(build_backbone(JOINT, 4, {"width": 24, "depth": 4}, interpreters={"groups": 2, "motion": True}))


@pytest.fixture
def clips():
    return torch.randint(0, 256, (3, 3, 8, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def literally(interpreter: Interpreter, tokens: torch.Tensor, motion: torch.Tensor | None) -> torch.Tensor:
    """Equation 1 with the stated deviations, patch by patch and head by head."""
    found = torch.zeros(tokens.shape[:2], dtype=tokens.dtype)
    keys = interpreter.key(interpreter.policy_token).chunk(interpreter.heads)
    for clip in range(tokens.shape[0]):
        for patch in range(tokens.shape[1]):
            seen = interpreter.norm(tokens[clip, patch])
            if motion is not None:
                seen = torch.cat((seen, motion[clip, patch].view(1)))
            queries = interpreter.query(seen).chunk(interpreter.heads)
            for head, (query, key) in enumerate(zip(queries, keys, strict=True)):
                product = (query * key).sum() / math.sqrt(len(key)) + interpreter.bias[head]
                found[clip, patch] += torch.sigmoid(product) / interpreter.heads
    return found


@pytest.mark.parametrize("motion", [False, True])
def test_scores_are_equation_1(motion):
    torch.manual_seed(0)
    interpreter = Interpreter(12, 3, motion).double()
    with torch.no_grad():
        for parameter in interpreter.parameters():
            parameter.add_(torch.randn_like(parameter))
    tokens, change = torch.randn(2, 5, 12).double(), torch.randn(2, 5).double() if motion else None
    torch.testing.assert_close(interpreter(tokens, change), literally(interpreter, tokens, change))


def test_one_head_by_hand():
    interpreter = Interpreter(2, 1, False)
    with torch.no_grad():
        interpreter.query.weight.copy_(torch.eye(2))
        interpreter.key.weight.copy_(2 * torch.eye(2))
        interpreter.policy_token.copy_(torch.tensor([1.0, 0.0]))
        interpreter.bias.fill_(0.5)
    # Normalised, (3, 1) is (1, -1) and (1, 3) is (-1, 1); the key is (2, 0).
    expected = [1 / (1 + math.exp(-(sign * 2 / math.sqrt(2) + 0.5))) for sign in (1, -1)]
    scores = interpreter(torch.tensor([[[3.0, 1.0], [1.0, 3.0]]]))
    torch.testing.assert_close(scores, torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_before_training_everything_is_kept(clips):
    fresh = build_backbone(JOINT, 4, interpreters={"groups": 3}).eval()
    for at in trace(fresh, clips, IARED2(fixed="threshold")):
        assert at.after.tolist() == [128] * 3
        assert float(at.heat.mean()) == pytest.approx(1 / (1 + math.exp(-START)), abs=0.05)


def test_groups_share_the_layers():
    starts = [Interpreters(InterpretersConfig(groups), 8, 12).starts for groups in (1, 3, 5)]
    assert starts == [(0,), (0, 4, 8), (0, 2, 4, 7, 9)]


@torch.no_grad()
def test_the_best_of_a_share_stay_at_every_group(model, clips):
    """Of 128 patches half of half: each group keeps the same share of what it gets."""
    first, second = trace(model, clips, IARED2(kept=0.25))
    assert (first.place, second.place) == (Place("embedding"), Place("layer", 1))
    assert first.after.tolist() == [64] * 3
    assert second.after.tolist() == [32] * 3
    for at, before in ((first, None), (second, first)):
        for clip, heat in enumerate(at.heat):
            there = range(128) if before is None else before.cells[clip].tolist()
            best = sorted(there, key=lambda cell: -float(heat[cell]))[: at.cells.shape[1]]
            assert at.cells[clip].tolist() == sorted(best)
    # What went before is 0 on the map of the second group.
    assert ((second.heat > 0).sum(dim=1) == 64).all()
    assert kept_share(model, clips, IARED2(kept=0.25)).tolist() == pytest.approx([(64 + 64 + 32 + 32) / 4 / 128] * 3)


@torch.no_grad()
def test_a_threshold_keeps_what_is_above_it_and_masks_only_unequal_counts(model, clips):
    reducer = IARED2(fixed="threshold")
    first = trace(model, clips, reducer)[0]
    for cells, heat in zip(first.cells, first.heat, strict=True):
        assert cells[cells >= 0].tolist() == (heat > 0.5).nonzero().flatten().tolist()
    counts = first.after.tolist()
    assert len(set(counts)) > 1
    states = [model.embed(some, reducer) for some in (clips, clips[:1], clips[[1, 1]])]
    assert [state.key_mask is None for state in states] == [False, True, True]
    assert [state.patches for state in states] == [max(counts), counts[0], counts[1]]


def test_the_best_patch_stays_whatever_its_score():
    kept = KeptCells(
        torch.tensor([[4, 6, 7], [1, 2, NO_TOKEN]]), torch.tensor([[True] * 3, [True, True, False]]), (2, 2, 2)
    )
    state = TokenState(torch.zeros(2, 3, 5), (2, 2, 2), kept=kept)
    scores = torch.tensor([[0.1, 0.3, 0.2], [0.4, 0.6, 0.9]])
    assert above(scores, 0.5, state).tolist() == [[False, True, False], [False, True, False]]


def test_motion_is_relative_to_the_patches_that_exist():
    """Cells of three frames of one place each; of the second clip the last one is gone."""
    kept = KeptCells(
        torch.tensor([[0, 1, 2], [0, 1, NO_TOKEN]]), torch.tensor([[True] * 3, [True, True, False]]), (3, 1, 1)
    )
    tokens = torch.tensor([[[4.0], [5.0], [5.5]], [[4.0], [4.0], [99.0]]])
    found = relative_motion(TokenState(tokens, (3, 1, 1), kept=kept))
    for clip, changes in ((0, [4.0, 1.0, 0.5]), (1, [4.0, 0.0])):
        mean = sum(changes) / len(changes)
        logs = torch.tensor([math.log(change + 0.01 * mean) for change in changes])
        expected = (logs - logs.mean()) / logs.std(correction=0)
        torch.testing.assert_close(found[clip, : len(changes)], expected, rtol=1e-4, atol=1e-5)
    assert found[1, 2] == 0
    still = relative_motion(TokenState(torch.zeros(1, 3, 1), (3, 1, 1)))
    assert still.tolist() == [[0.0] * 3]


@torch.no_grad()
def test_training_can_stop_after_some_groups(model, clips):
    whole, one = (trace(model, clips, reducer) for reducer in (IARED2(kept=0.25), IARED2(kept=0.25).of_first(1)))
    assert [at.place for at in one] == [Place("embedding")]
    assert torch.equal(one[0].cells, whole[0].cells)
    assert torch.equal(model(clips, reducer=IARED2().of_first(0)), model(clips))


def test_a_run_without_it_passes_over_the_interpreters(model, clips):
    bare = build_backbone(JOINT, 4, {"width": 24, "depth": 4}).eval()
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("reducer.")})
    assert torch.equal(bare(clips), model(clips))


def test_interpreters_cost_and_travel(model):
    """D h products for a patch and D D once for the key, h D for the product of both; LayerNorm 5 D."""
    half = count_cost(model, IARED2(kept=1.0)).macs - count_cost(model).macs
    d, h, n, n2 = 24, 4, 128, 128
    assert half == sum(count * ((d + 1) * h + 5 * d) + d * d + (d + 1) * d for count in (n, n2))
    assert count_cost(model).params > count_cost(build_backbone(JOINT, 4, {"width": 24, "depth": 4})).params
    smaller = model.without([1, 2])
    assert [at.place for at in trace(smaller, torch.zeros(1, 3, 8, 64, 64), IARED2())] == [
        Place("embedding"),
        Place("layer", 1),
    ]


def test_weights_with_and_without_interpreters_are_read(tmp_path, model):
    plain = build_backbone(JOINT, 4, {"width": 24, "depth": 4})
    path = tmp_path / "weights.pt"
    torch.save(plain.state_dict(), path)
    before = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("reducer.")}
    report = load_weights(model, path)
    assert set(report.fresh) == set(before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    torch.save(model.state_dict(), path)
    assert set(load_weights(plain, path).unused) == set(before)
    other = build_backbone(JOINT, 4, {"width": 24, "depth": 4}, interpreters={"groups": 1, "motion": True})
    with pytest.raises(CheckpointError, match=r"unknown, e.g. reducer.1"):
        load_weights(other, path)


def test_an_export_and_its_program_choose_alike(tmp_path, model, clips):
    tokens = TokenReduction.of("ia_red2", {"kept": 0.25})
    hyper = {
        "backbone": JOINT,
        "frames": 8,
        "size": 64,
        "num_classes": 4,
        "interpreters": {"groups": 2, "motion": True},
    }
    hyper |= {"options": {"width": 24, "depth": 4}, "tokens": tokens.plain()}
    folder = export_model(
        model, tmp_path / "export", name=JOINT, options={"width": 24, "depth": 4}, plan=unremoved_plan(tokens),
        provenance={}, sampling={}, hyper_parameters=hyper, programs=["torch_export"],
    )  # fmt: skip
    expected = model(clips, reducer=tokens.build())
    exported = load_exported(folder)
    assert torch.equal(exported.backbone(clips, reducer=exported.reducer), expected)
    assert {key for key in load_file(folder / "model.safetensors") if key.startswith("reducer.1.")}
    assert read_description(folder)["interpreters"] == {"groups": 2, "heads": 4, "motion": True}
    assert read_description(folder)["programs"]["torch_export"]["checked"]
    again = model_of(read_checkpoint(folder / "model.ckpt"), "model.ckpt")
    assert torch.equal(again(clips, reducer=tokens.build()), expected)


def test_what_cannot_be_is_said(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match="holds trained interpreters; this video_swin holds none"):
        trace(tiny_swin, tiny_clips, IARED2())
    for options, message in (
        ({"kept": 0.0}, "above 0"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"fixed": "layer"}, "share or threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenReduction.of("ia_red2", options)
    for name, interpreters, message in (
        (JOINT, {"groups": 7}, "7 groups, but it has 6 layers"),
        (JOINT, {"heads": 5}, "5 do not divide"),
        (JOINT, {"head": 5}, "interpreters has no option 'head'"),
        (JOINT, {"groups": 0}, "at least 1"),
        ("video_swin_demo", {}, "cannot hold interpreters"),
    ):
        with pytest.raises(ValueError, match=message):
            build_backbone(name, 3, interpreters=interpreters)


def test_amounts_go_from_all_to_almost_none(model, clips):
    for fixed in ("share", "threshold"):
        amounts = IARED2(fixed=fixed).amounts(model)
        shares = [float(kept_share(model, clips, amounts[place]).mean()) for place in (0, len(amounts) // 2, -1)]
        assert shares[0] == 1
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] < 0.05
        assert {dataclasses.replace(amount, attention="filled").fixed for amount in amounts} == {fixed}
