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

from sightline.backbones import Backbone, Layer, Reducer, Step, TokenState, last_state, run_steps
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
        sites_done: How many sites of the layer have run; None for the ablated layer, none of which has.
        state: Where the variant stands.
    """

    unit: Unit
    sites_done: int | None
    state: TokenState


@torch.no_grad()
def ablated_logits(
    backbone: Backbone,
    clips: Tensor,
    units: Sequence[Unit],
    *,
    stack: StackSize | None = None,
    control: bool = False,
    reducer: Reducer | None = None,
) -> AblatedLogits:
    """Return the logits of a batch with each unit ablated in turn.

    Args:
        backbone: In evaluation mode.
        clips: (B, 3, T, H, W).
        units: Layers and heads to ablate.
        stack: How many variants of the batch run as one, without an influence on the results; calls that
            share it measure memory once.
        control: Also compute the variants in which nothing is ablated.
        reducer: Chooses the tokens to go on with. What is scored is the model with its reducer: after the ablated unit
            it chooses anew.

    Raises:
        ValueError: If a unit does not exist or the backbone is in training mode.
    """
    size = StackSize() if stack is None else stack
    _check(backbone, units)
    wanted = set(units)
    if control:
        wanted |= {Unit(index, CONTROL) for index in backbone.layer_modules()}
    logits: dict[Unit, Tensor] = {}
    state = backbone.embed(clips, reducer)
    rest: _RestOfModel | None = None
    for step in run_steps(backbone, state, reducer=reducer, logits_only=True):
        if step.layer is not None and (rest is None or rest.layer is not step.layer):
            if rest is not None:
                logits.update(rest.flush())
            rest = _RestOfModel(backbone, step.layer, size, reducer)
            unit = Unit(step.index)
            if unit in wanted:
                logits.update(rest.add(_Variant(unit, None, state)))
        if rest is not None and step.kind == "attention":
            for variant in _without_heads(step, wanted):
                logits.update(rest.add(variant))
        state = step.after
    if rest is not None:
        logits.update(rest.flush())
    base = backbone.classify(state)
    none = base.new_empty(0, *base.shape)
    floor = [logits[Unit(index, CONTROL)] for index in backbone.layer_modules()] if control else []
    return AblatedLogits(
        base=base,
        units=torch.stack([logits[unit] for unit in units]) if units else none,
        control=torch.stack(floor) if floor else none,
    )


def _without_heads(step: Step, wanted: set[Unit]) -> Iterator[_Variant]:
    """Yield the variants that branch off where a site has run, one per wanted head, and the layer's control."""
    layer, outputs = step.layer, step.outputs
    assert layer is not None
    assert outputs is not None
    names = [site.name for site in layer.sites]
    done = names.index(step.site) + 1
    control = Unit(step.index, CONTROL)
    # One head is enough for the control: that of the first site that has any.
    first = next((site for site in layer.sites if site.heads), None)
    for position, head in enumerate(layer.sites[done - 1].heads):
        unit = Unit(step.index, step.site, head)
        restored = control in wanted and position == 0 and first is not None and step.site == first.name
        if unit not in wanted and not restored:
            continue
        contribution = layer.contribution(step.before, step.site, outputs, position)
        removed = step.after.with_tokens(step.after.tokens - contribution)
        if unit in wanted:
            yield _Variant(unit, done, removed)
        if restored:
            # Taken out and put back: what stays is the rounding that every variant suffers.
            yield _Variant(control, done, removed.with_tokens(removed.tokens + contribution))
    if control in wanted and first is None and done == len(names):  # no head is left to take out
        yield _Variant(control, done, step.after)


class _RestOfModel:
    """Collects variants of a layer and runs what follows on a stack of them."""

    def __init__(self, backbone: Backbone, layer: Layer, size: StackSize, reducer: Reducer | None) -> None:
        self.backbone = backbone
        self.layer = layer
        self.size = size
        self.reducer = reducer
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
        together: dict[int | None, list[_Variant]] = defaultdict(list)
        for variant in variants:
            together[variant.sites_done].append(variant)
        # Keys that a reducer will see may be those of different layers by now: of this one, or of one before it.
        through: dict[tuple[int, ...] | None, list[TokenState]] = defaultdict(list)
        units: dict[tuple[int, ...] | None, list[Unit]] = defaultdict(list)
        for done, those in together.items():
            state = self._through_layer(TokenState.stack([variant.state for variant in those]), done)
            shape = next((tuple(values.shape[2:]) for values in state.features.values()), None)
            through[shape].append(state)
            units[shape] += [variant.unit for variant in those]
        found: dict[Unit, Tensor] = {}
        for shape, states in through.items():
            out = self.backbone.readout(TokenState.stack(states), self.layer.index + 1, reducer=self.reducer)
            found |= zip(units[shape], out.chunk(len(units[shape])), strict=True)
        return found

    def _through_layer(self, state: TokenState, sites_done: int | None) -> TokenState:
        """Run what is left of the layer, or its shortcut where the layer itself is ablated."""
        index = self.layer.index
        steps = run_steps(
            self.backbone,
            state,
            index,
            index + 1,
            sites_done=sites_done or 0,
            skip={index} if sites_done is None else (),
            reducer=self.reducer,
            logits_only=True,
        )
        return last_state(steps, state)


def _check(backbone: Backbone, units: Sequence[Unit]) -> None:
    if backbone.training:
        raise ValueError("Ablation needs the backbone in evaluation mode; call backbone.eval() first.")
    known = set(backbone.units("layers")) | set(backbone.units("heads"))
    unknown = [unit for unit in units if unit not in known]
    if unknown:
        raise ValueError(f"{backbone.family} has no {', '.join(map(str, unknown[:5]))} to ablate.")
