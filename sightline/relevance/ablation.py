"""Exact ablation of one head or one layer at a time, computing nothing twice that does not change.

The base states are computed once. A unit in layer l changes only what follows, so a variant starts where it departs
from the base: a layer at its end, a head at the end of its site, where its contribution through the output projection
(which is affine in the heads) is subtracted. The variants of a layer, its heads and the layer itself, run stacked along
the batch. Where the classifier reads class tokens alone, the last layer computes no others.

Works through the backbone contract alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.backbones import Backbone, HeadOutputs, Layer, TokenState
from sightline.relevance.memory import StackSize
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


@dataclass(frozen=True)
class _Variant:
    """A batch with one unit of a layer ablated.

    Attributes:
        unit: What is ablated.
        place: How many sites of the layer have run; None where the layer is through.
        state: Where the variant stands.
    """

    unit: Unit
    place: int | None
    state: TokenState


@torch.no_grad()
def ablated_logits(
    backbone: Backbone, clips: Tensor, units: Sequence[Unit], *, stack: StackSize | None = None, control: bool = False
) -> AblatedLogits:
    """Return the logits of a batch with each unit ablated in turn.

    Args:
        backbone: In evaluation mode.
        clips: (B, 3, T, H, W).
        units: Layers and heads to ablate.
        stack: How many variants of the batch run as one, which results do not depend on; calls that share it measure
            memory once.
        control: Also compute the variants in which nothing is ablated.

    Raises:
        ValueError: If a unit does not exist or the backbone is in training mode.
    """
    size = StackSize() if stack is None else stack
    _check(backbone, units)
    wanted = set(units)
    if control:
        wanted |= {Unit(index, CONTROL) for index in backbone.layer_modules()}
    modules, last_read = backbone.layer_modules(), backbone.last_read_layer()
    logits: dict[Unit, Tensor] = {}
    state = backbone.embed(clips)
    for index in range(backbone.depth):
        state = backbone.enter(index, state)
        if index in modules:
            walk = _LayerwisePass(modules[index], wanted, index == last_read)
            rest = _RestOfModel(backbone, modules[index], size, index == last_read)
            for variant in walk.variants(state):
                logits.update(rest.add(variant))
            logits.update(rest.flush())
            state = walk.state
    base = backbone.classify(state)
    none = base.new_empty(0, *base.shape)
    floor = [logits[Unit(index, CONTROL)] for index in modules] if control else []
    return AblatedLogits(
        base=base,
        units=torch.stack([logits[unit] for unit in units]) if units else none,
        control=torch.stack(floor) if floor else none,
    )


class _LayerwisePass:
    """One layer, walked once with nothing ablated; on the way the wanted variants branch off.

    Attributes:
        state: The unablated state after the layer, once all variants were taken.
    """

    def __init__(self, layer: Layer, wanted: set[Unit], class_only: bool) -> None:
        self.layer = layer
        self.wanted = wanted
        self.class_only = class_only
        self.state: TokenState

    def variants(self, state: TokenState) -> Iterator[_Variant]:
        layer, sites = self.layer, self.layer.sites
        if Unit(layer.index) in self.wanted:
            yield _Variant(Unit(layer.index), None, layer.shortcut(state))
        control = Unit(layer.index, CONTROL)
        restore = control in self.wanted
        for place, site in enumerate(sites):
            last = self.class_only and place + 1 == len(sites)
            attended = layer.attend_class(state, site.name) if last else layer.attend(state, site.name)
            after = layer.project(state, site.name, attended)
            for position, head in enumerate(site.heads):
                unit = Unit(layer.index, site.name, head)
                if unit in self.wanted:
                    yield _Variant(unit, place + 1, self._without(after, state, attended, site.name, position))
                if restore:
                    # Taken out and put back: what stays is the rounding that every variant suffers.
                    removed = self._without(after, state, attended, site.name, position)
                    back = removed.tokens + layer.contribution(state, site.name, attended, position)
                    yield _Variant(control, place + 1, removed.with_tokens(back))
                    restore = False
            state = after
        if restore:  # no head is left to take out
            yield _Variant(control, len(sites), state)
        self.state = layer.mlp_step(state)

    def _without(
        self, after: TokenState, state: TokenState, attended: HeadOutputs, site: str, position: int
    ) -> TokenState:
        return after.with_tokens(after.tokens - self.layer.contribution(state, site, attended, position))


class _RestOfModel:
    """Collects variants of a layer and runs what follows on a stack of them."""

    def __init__(self, backbone: Backbone, layer: Layer, size: StackSize, class_only: bool) -> None:
        self.backbone = backbone
        self.layer = layer
        self.size = size
        self.class_only = class_only
        self.waiting: list[_Variant] = []

    def add(self, variant: _Variant) -> dict[Unit, Tensor]:
        """Take a variant; return the logits of those that it made a full stack with."""
        self.waiting.append(variant)
        tokens = variant.state.tokens
        full = len(self.waiting) >= self.size.of(self.layer.index, len(tokens), tokens.device)
        return self.flush() if full else {}

    def flush(self) -> dict[Unit, Tensor]:
        """Return the logits of all that wait."""
        waiting, self.waiting = self.waiting, []
        return self._run(waiting) if waiting else {}

    def _run(self, variants: list[_Variant]) -> dict[Unit, Tensor]:
        with self.size.measured(self.layer.index, variants[0].state.batch):
            try:
                return self._logits(variants)
            except torch.OutOfMemoryError:
                if len(variants) == 1:
                    raise
        # Outside of the handler, whose traceback would keep the tensors alive.
        self.size.halve(self.layer.index)
        torch.cuda.empty_cache()
        half = len(variants) // 2
        return self._run(variants[:half]) | self._run(variants[half:])

    def _logits(self, variants: list[_Variant]) -> dict[Unit, Tensor]:
        at_place: dict[int | None, list[_Variant]] = defaultdict(list)
        for variant in variants:
            at_place[variant.place].append(variant)
        through = []
        for place, those in at_place.items():
            state = TokenState.stack([variant.state for variant in those])
            if place is not None:
                state = self.layer.resume(state, place, self.class_only)
            through.append(state.only_class_tokens() if self.class_only else state)
        out = self.backbone.readout(TokenState.stack(through), self.layer.index + 1)
        units = [variant.unit for those in at_place.values() for variant in those]
        return dict(zip(units, out.chunk(len(units)), strict=True))


def _check(backbone: Backbone, units: Sequence[Unit]) -> None:
    if backbone.training:
        raise ValueError("Ablation needs the backbone in evaluation mode; call backbone.eval() first.")
    known = set(backbone.units("layers")) | set(backbone.units("heads"))
    unknown = [unit for unit in units if unit not in known]
    if unknown:
        raise ValueError(f"{backbone.family} has no {', '.join(map(str, unknown[:5]))} to ablate.")
