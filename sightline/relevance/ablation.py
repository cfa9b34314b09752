"""Exact ablation of one head or one layer at a time, computing nothing twice that does not change.

The base states are computed once. A unit in layer l changes only what follows, so a variant starts where it departs
from the base: a layer at its end, a head at the end of its site, where its contribution through the output projection
(which is affine in the heads) is subtracted. Variants that have left the same layer run stacked along the batch.

Works through the backbone contract alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sightline.backbones import Backbone, Layer, TokenState
from sightline.types import Unit

# Stands for "nothing was ablated in this layer"; never the name of a real site.
CONTROL = "control"


@dataclass(frozen=True)
class AblatedLogits:
    """Logits of one batch.

    Attributes:
        base: Of the unablated model, (B, C).
        units: With each unit ablated, in the order asked for, (U, B, C).
        control: With nothing ablated, along the same paths, one per layer, (layers, B, C); no rows unless asked for.
            How far they are from ``base`` is the noise floor of the arithmetic.
    """

    base: Tensor
    units: Tensor
    control: Tensor


@torch.no_grad()
def ablated_logits(
    backbone: Backbone, clips: Tensor, units: Sequence[Unit], *, stack: int = 8, control: bool = False
) -> AblatedLogits:
    """Return the logits of a batch with each unit ablated in turn.

    Args:
        backbone: In evaluation mode.
        clips: (B, 3, T, H, W).
        units: Layers and heads to ablate.
        stack: How many variants of the batch run as one; memory grows with it, results do not depend on it.
        control: Also compute the variants in which nothing is ablated.

    Raises:
        ValueError: If a unit does not exist, ``stack`` is below 1, or the backbone is in training mode.
    """
    _check(backbone, units, stack)
    wanted = set(units)
    modules = backbone.layer_modules()
    logits: dict[Unit, Tensor] = {}
    state = backbone.embed(clips)
    for index in range(backbone.depth):
        state = backbone.enter(index, state)
        if index in modules:
            rest = _RestOfModel(backbone, index + 1, stack, logits)
            state = _walk_layer(modules[index], state, wanted, rest, control)
            rest.flush()
    base = backbone.classify(state)
    floor = [logits[Unit(index, CONTROL)] for index in modules] if control else []
    none = base.new_empty(0, *base.shape)
    return AblatedLogits(
        base=base,
        units=torch.stack([logits[unit] for unit in units]) if units else none,
        control=torch.stack(floor) if floor else none,
    )


def _walk_layer(layer: Layer, state: TokenState, wanted: set[Unit], rest: _RestOfModel, control: bool) -> TokenState:
    """Send every wanted variant of a layer to the rest of the model; return the unablated state after the layer."""
    if Unit(layer.index) in wanted:
        rest.add(Unit(layer.index), layer.shortcut(state))
    for place, site in enumerate(layer.sites):
        attended = layer.attend(state, site.name)
        after = layer.project(state, site.name, attended)
        for position, head in enumerate(site.heads):
            unit = Unit(layer.index, site.name, head)
            measure_floor = control and place == 0 and position == 0
            if unit not in wanted and not measure_floor:
                continue
            removed = after.tokens - layer.contribution(state, site.name, attended, position)
            if unit in wanted:
                rest.add(unit, _finish(layer, place + 1, after.with_tokens(removed)))
            if measure_floor:
                # Taken out and put back: what stays is the rounding that every variant suffers.
                restored = removed + layer.contribution(state, site.name, attended, position)
                rest.add(Unit(layer.index, CONTROL), _finish(layer, place + 1, after.with_tokens(restored)))
        state = after
    state = layer.mlp_step(state)
    if control and not any(site.heads for site in layer.sites):
        rest.add(Unit(layer.index, CONTROL), state)
    return state


def _finish(layer: Layer, place: int, state: TokenState) -> TokenState:
    """Run what follows inside a layer: the sites from ``place`` on, then the MLP."""
    for site in layer.sites[place:]:
        state = layer.project(state, site.name, layer.attend(state, site.name))
    return layer.mlp_step(state)


@dataclass
class _RestOfModel:
    """Collects variants that stand before layer ``start`` and runs what follows on a stack of them."""

    backbone: Backbone
    start: int
    size: int
    logits: dict[Unit, Tensor]
    waiting: list[tuple[Unit, TokenState]] = field(default_factory=list)

    def add(self, unit: Unit, state: TokenState) -> None:
        self.waiting.append((unit, state))
        if len(self.waiting) == self.size:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        stacked = TokenState.stack([state for _, state in self.waiting])
        out = self.backbone.classify(self.backbone.run(stacked, self.start))
        for (unit, _), part in zip(self.waiting, out.chunk(len(self.waiting)), strict=True):
            self.logits[unit] = part
        self.waiting = []


def _check(backbone: Backbone, units: Sequence[Unit], stack: int) -> None:
    if backbone.training:
        raise ValueError("Ablation needs the backbone in evaluation mode; call backbone.eval() first.")
    if stack < 1:
        raise ValueError(f"stack must be at least 1, got {stack}.")
    known = set(backbone.units("layers")) | set(backbone.units("heads"))
    unknown = [unit for unit in units if unit not in known]
    if unknown:
        raise ValueError(f"{backbone.family} has no {', '.join(map(str, unknown[:5]))} to ablate.")
