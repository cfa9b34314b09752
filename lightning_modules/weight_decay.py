"""Which parameters weight decay shrinks, and optimiser states that were saved under another grouping.

Decay pulls a parameter to zero. That is a prior for matrices that multiply tokens; a bias, a norm's scale, a position
or a class token has no reason to be small, so timm (`timm.optim.param_groups_weight_decay`) and the official recipes
leave them alone. What has fewer than two dimensions is exempt in every family; the rest a family names itself, see
`Backbone.no_weight_decay`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import nn

from sightline.backbones import Backbone
from sightline.checkpoints.files import CheckpointError

Named = list[tuple[str, nn.Parameter]]


def decay_groups(backbone: Backbone, weight_decay: float) -> list[dict[str, Any]]:
    """Return an optimiser's groups of named parameters: those that decay, and those that do not."""
    decayed, exempt = split_by_decay(backbone)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def split_by_decay(backbone: Backbone) -> tuple[Named, Named]:
    """Split a backbone's parameters, in order, into those that weight decay shrinks and those that it leaves alone."""
    decayed: Named = []
    exempt: Named = []
    for name, parameter in backbone.named_parameters():
        alone = parameter.dim() <= 1 or name.rpartition(".")[2] in backbone.no_weight_decay
        (exempt if alone else decayed).append((name, parameter))
    return decayed, exempt


def regrouped(state: Mapping[str, Any], backbone: Backbone) -> dict[str, Any]:
    """Return an optimiser's saved state with its parameters in the groups of `decay_groups`, matched by name.

    States that hold no names were saved by versions that grouped by the number of dimensions alone.

    Args:
        state: What `torch.optim.Optimizer.state_dict` returned for two groups: decayed, not decayed.
        backbone: The model that training goes on with.

    Raises:
        CheckpointError: If the state is not of this model's parameters.
    """
    saved = state["param_groups"]
    came = [group.get("param_names") for group in saved]
    if None in came:
        named = list(backbone.named_parameters())
        came = [[name for name, p in named if (p.dim() > 1) == matrices] for matrices in (True, False)]
    wanted = [[name for name, _ in group] for group in split_by_decay(backbone)]
    counts = [len(group["params"]) for group in saved]
    if counts != [len(names) for names in came] or sorted(chain(*came)) != sorted(chain(*wanted)):
        raise CheckpointError(
            f"The checkpoint's optimiser state, of {sum(counts)} parameters, does not fit the model, which has "
            f"{len(list(chain(*wanted)))}: training cannot go on from it. To train anew from its weights, pass it as "
            "--model.weights and not as --ckpt_path."
        )
    old = dict(zip(chain(*came), chain(*(group["params"] for group in saved)), strict=True))
    new = {name: key for key, name in enumerate(chain(*wanted))}
    return {
        "state": {key: state["state"][old[name]] for name, key in new.items() if old[name] in state["state"]},
        "param_groups": [
            {**group, "params": [new[name] for name in names], "param_names": names}
            for group, names in zip(saved, wanted, strict=True)
        ],
    }
