import re

import pytest
import torch
from torch import nn

from lightning_modules.weight_decay import decay_groups, regrouped
from sightline.backbones import Backbone, build_backbone
from sightline.checkpoints.files import CheckpointError
from tests.conftest import DEMO_VARIANTS

# What has several dimensions and is exempt; layers are numbered N. From the `no_weight_decay` of the official
# TimeSformer, PySlowFast (MVIT.ZERO_DECAY_POS_CLS) and `paramwise_cfg` of Video Swin's configurations; VideoMAE's
# positions are fixed and no parameters.
EXEMPT = {
    "timesformer": {"pos_embed", "time_embed", "cls_token"},
    "mvit": {f"blocks.N.attn.rel_pos_{axis}" for axis in "hwt"},
    "video_swin": {"features.N.N.attn.relative_position_bias_table"},
    "vit": set(),
}


def old_groups(backbone: Backbone) -> list[dict]:
    """How versions before names were kept grouped parameters."""
    parameters = list(backbone.parameters())
    return [{"params": [p for p in parameters if p.dim() > 1]}, {"params": [p for p in parameters if p.dim() <= 1]}]


def stepped(groups: list[dict], backbone: Backbone) -> torch.optim.Optimizer:
    """Return an optimiser after one step, in which the gradient of every parameter has a value of its own."""
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for number, parameter in enumerate(backbone.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_the_groups_are_all_parameters_and_those_of_the_official_recipes(name):
    backbone = build_backbone(name, 3)
    decayed, exempt = decay_groups(backbone, 0.05)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0)
    names = [name for name, _ in decayed["params"] + exempt["params"]]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())
    assert all(p.dim() > 1 for _, p in decayed["params"])
    several = {re.sub(r"\d+", "N", name) for name, p in exempt["params"] if p.dim() > 1}
    assert several == EXEMPT[backbone.family]


def test_decay_shrinks_matrices_and_leaves_positions_alone():
    backbone = build_backbone("timesformer_demo", 3)
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    optimizer = torch.optim.AdamW(decay_groups(backbone, 0.1), lr=0.5)
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that all that moves a parameter is the decay
    optimizer.step()
    for name, parameter in backbone.named_parameters():
        factor = 0.95 if name.endswith(".weight") and parameter.dim() > 1 else 1  # 1 - learning rate * decay
        torch.testing.assert_close(parameter.detach(), factor * before[name], msg=name)


@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_states_of_any_grouping_reach_their_parameters(name):
    backbone = build_backbone(name, 3)
    named = list(backbone.named_parameters())
    for groups in (
        old_groups(backbone),
        [{"params": named[1::2]}, {"params": named[::2]}],  # another version's, with names
        decay_groups(backbone, 0.1),
    ):
        state = stepped(groups, backbone).state_dict()
        optimizer = torch.optim.AdamW(decay_groups(backbone, 0.1), lr=1e-3)
        optimizer.load_state_dict(regrouped(state, backbone))
        for number, (key, parameter) in enumerate(named):
            # One step's running mean of a constant gradient is a tenth of it.
            expected = torch.full_like(parameter, (number + 1) / 10)
            torch.testing.assert_close(optimizer.state[parameter]["exp_avg"], expected, msg=key)


def test_the_decay_of_a_saved_group_stays_with_its_group():
    backbone = build_backbone("video_swin_demo", 3)
    state = stepped(
        [{**group, "weight_decay": d} for group, d in zip(old_groups(backbone), (0.3, 0.0), strict=True)], backbone
    )
    optimizer = torch.optim.AdamW(decay_groups(backbone, 0.1), lr=1e-3)
    optimizer.load_state_dict(regrouped(state.state_dict(), backbone))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0]


def test_states_of_other_parameters_are_refused_in_one_line():
    backbone = build_backbone("vit_demo", 3)
    fewer = [{"params": group["params"][1:]} for group in old_groups(backbone)]
    other = nn.Linear(2, 2)
    renamed = [{"params": [("a", other.weight)]}, {"params": [("b", other.bias)]}]
    for groups in (fewer, renamed, [{"params": list(backbone.parameters())}]):
        state = torch.optim.AdamW(groups).state_dict()
        with pytest.raises(CheckpointError, match=r"does not fit the model.*--model\.weights") as refused:
            regrouped(state, backbone)
        assert "\n" not in str(refused.value)
