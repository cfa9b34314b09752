import pytest
import torch

from sightline.backbones import build_backbone
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.job import score_batch
from sightline.relevance.memory import StackSize
from sightline.relevance.scores import score
from sightline.types import Unit
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.relevance.reference import literal_logits, logits_without

# Probabilities; logits here are of order 1 and are sums of some hundred float32 products.
TOLERANCE = 1e-5


def test_stored_scores_equal_the_literal_definition(tiny_swin, tiny_clips, monkeypatch):
    labels = torch.tensor([0, 3, 4])
    batch = {"clip": tiny_clips, "label": labels, "sample_id": list("abc"), "group": list("xyz"), "unreadable": []}
    base = tiny_swin(tiny_clips)
    for kind in ("heads", "layers"):
        units = tiny_swin.units(kind)
        rows, _ = score_batch(tiny_swin, batch, units, StackSize(3))
        table = rows.to_pandas().set_index(["sample_id", "layer"] + (["head"] if kind == "heads" else []))
        assert len(table) == 3 * len(units)
        for unit in units:
            head = None if unit.is_layer else unit.head
            expected_logits = logits_without(tiny_swin, tiny_clips, unit.layer, head, monkeypatch)
            expected = score(base.detach(), expected_logits[None], labels)
            assert expected.dprob.max() > 1e-3  # otherwise nothing would be compared
            for i, name in enumerate("abc"):
                row = table.loc[(name, unit.layer) if head is None else (name, unit.layer, head)]
                for column in ("dprob", "jsd", "r", "p_true_ablated"):
                    assert row[column] == pytest.approx(getattr(expected, column)[0, i].item(), abs=TOLERANCE)
                assert row["p_true"] == pytest.approx(expected.p_true[i].item(), abs=TOLERANCE)
                assert row["predicted"] == base[i].argmax().item()
                assert row["label"] == labels[i].item()
                assert row["group"] == "xyz"[i]


def assert_literal(backbone, clips, units, monkeypatch) -> None:
    found = ablated_logits(backbone, clips, units)
    base = found.base.softmax(-1)
    for unit, logits in zip(units, found.units, strict=True):
        expected = literal_logits(backbone, clips, unit, monkeypatch).softmax(-1)
        torch.testing.assert_close(logits.softmax(-1), expected, rtol=0, atol=TOLERANCE, msg=lambda m: f"{unit}: {m}")
        assert (expected - base).abs().max() > 1e-4, f"{unit} does not matter, so that nothing was compared"


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_every_unit_of_every_family_equals_the_literal_definition(name, monkeypatch):
    backbone = randomise(build_backbone(name, 7))
    spec = backbone.input_spec
    shape = (2, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    assert_literal(backbone, clips, backbone.units("heads") + backbone.units("layers"), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["video_swin_s", "timesformer_base", "mvit_v2_s", "vit_base_videomae"])
def test_sampled_units_at_full_size_equal_the_literal_definition(name, monkeypatch):
    backbone = randomise(build_backbone(name, 20))
    clips = torch.randint(0, 256, (1, 3, 16, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    heads, layers = backbone.units("heads"), backbone.units("layers")
    # In the middle and in the last layer; TimeSformer's heads there are of its two sites.
    units = [heads[len(heads) // 2], heads[-1], heads[-len(heads) // backbone.depth], layers[backbone.depth // 2]]
    assert_literal(backbone, clips, units, monkeypatch)


def test_results_do_not_depend_on_stack_batch_or_order(tiny_swin, tiny_clips):
    units = tiny_swin.units("heads") + tiny_swin.units("layers")
    whole = ablated_logits(tiny_swin, tiny_clips, units)
    for stack in (1, 3, 1000):
        other = ablated_logits(tiny_swin, tiny_clips, units, stack=StackSize(stack))
        torch.testing.assert_close(other.units, whole.units, rtol=1e-5, atol=1e-5)
        assert torch.equal(other.base, whole.base)
    one_by_one = [ablated_logits(tiny_swin, tiny_clips[i : i + 1], units).units for i in range(3)]
    torch.testing.assert_close(torch.cat(one_by_one, 1), whole.units, rtol=1e-5, atol=1e-5)
    backwards = ablated_logits(tiny_swin, tiny_clips, units[::-1])
    torch.testing.assert_close(backwards.units.flip(0), whole.units, rtol=1e-5, atol=1e-5)
    some = ablated_logits(tiny_swin, tiny_clips, units[3:5])
    torch.testing.assert_close(some.units, whole.units[3:5], rtol=1e-5, atol=1e-5)


def test_what_does_nothing_scores_nothing_and_ranks_lowest(tiny_swin, tiny_clips):
    """A layer made to be the identity and a head whose output projection is zero."""
    idle_layer = tiny_swin.layer_modules()[1]
    idle_head = Unit(2, "attention", 3)
    with torch.no_grad():
        for linear in (idle_layer.attn.proj, idle_layer.mlp[3]):
            linear.weight.zero_()
            linear.bias.zero_()
        tiny_swin.layer_modules()[2].attn.proj.weight[:, 3 * 8 : 4 * 8] = 0
    units = tiny_swin.units("layers") + tiny_swin.units("heads")
    out = ablated_logits(tiny_swin, tiny_clips, units, control=True)
    labels = torch.tensor([0, 1, 2])
    r = dict(zip(units, score(out.base, out.units, labels).r.mean(1).tolist(), strict=True))
    floor = score(out.base, out.control, labels).r.max().item()
    assert floor < 1e-6
    idle = {Unit(1), idle_head, *(Unit(1, "attention", h) for h in (0, 1))}  # heads of an idle layer do nothing either
    assert max(r[unit] for unit in idle) <= max(floor, 1e-7)
    assert min(value for unit, value in r.items() if unit not in idle) > 10 * max(floor, 1e-7)
    assert min((u for u in units if u.is_layer), key=r.get) == Unit(1)


def test_control_measures_rounding_only(tiny_swin, tiny_clips):
    out = ablated_logits(tiny_swin, tiny_clips, [], control=True)
    assert out.units.shape == (0, 3, 5)
    assert out.control.shape == (4, 3, 5)
    torch.testing.assert_close(out.control, out.base.expand(4, -1, -1), rtol=0, atol=1e-5)


def test_removed_layers_and_heads_are_passed_over(tiny_swin, tiny_clips):
    smaller = tiny_swin.without([1]).without_heads([Unit(2, "attention", 0)])
    units = smaller.units("heads")
    assert Unit(1, "attention", 0) not in units
    assert Unit(2, "attention", 0) not in units
    found = ablated_logits(smaller, tiny_clips, units).units
    position = units.index(Unit(2, "attention", 2))
    expected = smaller(tiny_clips, gates={(2, "attention"): torch.tensor([1.0, 0.0, 1.0])})
    torch.testing.assert_close(found[position], expected, rtol=1e-5, atol=1e-5)


def test_wrong_requests_are_refused(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match="layer 9"):
        ablated_logits(tiny_swin, tiny_clips, [Unit(9)])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        StackSize(0)
    with pytest.raises(ValueError, match="evaluation mode"):
        ablated_logits(tiny_swin.train(), tiny_clips, [])
