import pandas as pd
import pytest
import torch

from sightline.backbones import build_backbone
from sightline.relevance.screening import agreement, gradient_proxy
from sightline.types import Unit
from tests.conftest import DEMO_VARIANTS, randomise

LABELS = torch.tensor([0, 3, 4])


def losses(backbone, clips, gates=None) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(backbone(clips, gates=gates), LABELS, reduction="none")


def test_proxy_is_the_slope_of_the_loss_in_a_heads_gate(tiny_swin, tiny_clips):
    """sum H . dL/dH is dL/dg where the head is multiplied by g, at g = 1: found here by small steps, in float64."""
    model, clips = tiny_swin.double(), tiny_clips.double() / 255
    found = gradient_proxy(model, clips, LABELS)
    units = model.units("heads")
    assert found.shape == (len(units), 3)
    step = 1e-4
    for unit, proxy in zip(units, found, strict=True):
        gate = torch.ones(2 if unit.layer < 2 else 4, dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            gate[unit.head] = 1 + sign * step
            sides.append(losses(model, clips, {(unit.layer, "attention"): gate}))
        slope = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close(proxy.double(), slope.abs().detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_every_family_can_be_screened_with_frozen_parameters(name):
    backbone = randomise(build_backbone(name, 7)).requires_grad_(False)
    spec = backbone.input_spec
    shape = (3, 3, spec.frames, spec.height, spec.width)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = gradient_proxy(backbone, clips, LABELS)
    units = backbone.units("heads")
    assert found.shape == (len(units), 3)
    assert (found > 0).all()
    alone = torch.cat([gradient_proxy(backbone, clips[i : i + 1], LABELS[i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-6)
    unit = units[-1]
    idle = backbone.without_heads([unit])
    assert gradient_proxy(idle, clips, LABELS).shape == (len(units) - 1, 3)


def test_a_head_whose_projection_is_zero_has_proxy_zero(tiny_swin, tiny_clips):
    with torch.no_grad():
        tiny_swin.layer_modules()[2].attn.proj.weight[:, 3 * 8 : 4 * 8] = 0
    found = dict(zip(tiny_swin.units("heads"), gradient_proxy(tiny_swin, tiny_clips, LABELS), strict=True))
    idle = Unit(2, "attention", 3)
    assert found.pop(idle).abs().max() < 1e-9
    assert min(values.max() for values in found.values()) > 1e-4


def test_training_mode_is_refused(tiny_swin, tiny_clips):
    with pytest.raises(ValueError, match="evaluation mode"):
        gradient_proxy(tiny_swin.train(), tiny_clips, LABELS)


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [(sample, 0, "attention", head) for sample in "abc" for head in range(4)]
    proxies = pd.DataFrame(rows, columns=["sample_id", "layer", "site", "head"])
    return proxies.assign(proxy=[1.0, 2, 3, 4] * 3), proxies.assign(r=[0.1, 0.2, 0.4, 0.3] * 3)


def test_agreement_by_hand():
    proxies, exact = tables()
    # Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * (1 + 1) / (4 * 15) = 0.8.
    found = agreement(proxies, exact[exact["sample_id"] != "c"])
    assert found.spearman == pytest.approx(0.8)
    assert (found.heads, found.samples) == (4, 2)


def test_tables_that_do_not_fit_are_refused():
    proxies, exact = tables()
    with pytest.raises(ValueError, match="no sample in common"):
        agreement(proxies, exact.assign(sample_id="z"))
    with pytest.raises(ValueError, match="different heads"):
        agreement(proxies, exact[exact["head"] != 2])
