"""The one loop over a backbone's layers and their steps.

Everything that runs layers, or a part of one, goes through `run_steps`: the forward pass, ablation, baselines, maps. It
yields after every step, so that a caller can look at what was computed, branch off, or stop.

The steps of a layer: ``entry`` (what stands before it without being part of it: patch merging), ``attention`` (one per
site), ``mlp``. A layer that is skipped has ``shortcut`` in their place. ``reduction`` follows where a reducer dropped
tokens, or where what it needed to see is not needed any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.observation import Feature, Gates, HeadOutputs, Observer
from sightline.backbones.contract.reducer import Place, Reducer, ReductionPoints
from sightline.backbones.contract.state import TokenState

if TYPE_CHECKING:
    from sightline.backbones.contract.backbone import Backbone


@dataclass(frozen=True)
class Step:
    """One step that has run.

    Attributes:
        kind: Which one.
        index: Original index of the layer that it belongs to or precedes.
        before: The state before it.
        after: The state after it.
        layer: The layer; None where it was removed.
        site: Name of the attention site.
        outputs: What the site computed, gated.
    """

    kind: Literal["entry", "attention", "mlp", "shortcut", "reduction"]
    index: int
    before: TokenState
    after: TokenState
    layer: Layer | None = None
    site: str = ""
    outputs: HeadOutputs | None = None


def run_steps(
    backbone: Backbone,
    state: TokenState,
    start: int = 0,
    stop: int | None = None,
    *,
    sites_done: int = 0,
    skip: Collection[int] = (),
    gates: Gates | None = None,
    observer: Observer | None = None,
    reducer: Reducer | None = None,
    logits_only: bool = False,
) -> Iterator[Step]:
    """Run layers start..stop-1 step by step.

    Args:
        backbone: Whose layers.
        state: The state before layer ``start``, or inside it.
        start: First layer, by original index; layers that were pruned away are passed over.
        stop: One past the last layer; all that follow if None.
        sites_done: How many attention sites of layer ``start`` have run already; its entry has too, if any has.
        skip: Layers to ablate: replaced by the identity (or by their shortcut, see `Layer.shortcut`). Where a run is
            made in several calls with a reducer, all of them must be told of the same layers.
        gates: Factor of every head of a site, (h,) or (B, h), by (layer, site).
        observer: What to keep of the sites.
        reducer: Chooses the tokens to go on with.
        logits_only: Where the classifier reads class tokens alone, compute no others in the last layer. Needs
            evaluation mode.

    Yields:
        Every step once it has run. A layer that was removed yields its entry alone, and that only where it does
        something.
    """
    modules = backbone.layer_modules()
    last_read = backbone.last_read_layer() if logits_only else None
    points = None if reducer is None else ReductionPoints(backbone, reducer, skip)
    for index in range(start, backbone.depth if stop is None else stop):
        layer = modules.get(index)
        if index > start or not sites_done:
            for step in _entry(backbone, state, index, layer, points):
                state = step.after
                yield step
        if layer is None or index in skip:
            if layer is not None:
                shortcut = layer.shortcut(state)
                shortcut = shortcut.only_class_tokens() if index == last_read else shortcut
                step = Step("shortcut", index, state, shortcut, layer)
                state = step.after
                yield step
            for step in _reductions(points, state, index, layer, (Place("attention", index), Place("layer", index))):
                state = step.after
                yield step
            continue
        first = sites_done if index == start else 0
        for number, site in enumerate(layer.sites):
            if number < first:
                continue
            last = number + 1 == len(layer.sites)
            for_reducer = points.wanted_features(index) if last and points is not None else ()
            step = _attention(layer, site.name, state, gates, observer, for_reducer, last and index == last_read)
            state = step.after
            yield step
        for step in _reductions(points, state, index, layer, (Place("attention", index),)):
            state = step.after
            yield step
        if index == last_read and state.patches:
            state = state.only_class_tokens()
        step = Step("mlp", index, state, layer.mlp_step(state), layer)
        state = step.after
        yield step
        for step in _reductions(points, state, index, layer, (Place("layer", index),)):
            state = step.after
            yield step


def last_state(steps: Iterator[Step], state: TokenState) -> TokenState:
    """Run all steps; return the state after the last, or the one given where there are none."""
    for step in steps:
        state = step.after
    return state


def _entry(
    backbone: Backbone, state: TokenState, index: int, layer: Layer | None, points: ReductionPoints | None
) -> Iterator[Step]:
    entered = backbone.before_layer(index, state)
    if entered is not state:
        yield Step("entry", index, state, entered, layer)
    if points is not None and (stage := points.stage_at(index)) is not None:
        yield from _reductions(points, entered, index, layer, (Place("stage", stage),))


def _attention(
    layer: Layer,
    site: str,
    state: TokenState,
    gates: Gates | None,
    observer: Observer | None,
    for_reducer: Collection[Feature],
    class_only: bool,
) -> Step:
    watched = observer if observer is not None and observer.watches(layer.index) else None
    if class_only and watched is None and not for_reducer:
        outputs = layer.attend_class(state, site)
    else:
        attention, keys = (watched.attention, watched.keys) if watched is not None else (False, False)
        outputs = layer.attend(state, site, attention, keys, for_reducer)
    gate = gates.get((layer.index, site)) if gates else None
    if gate is not None:
        outputs = outputs.gated(gate)
    if watched is not None:
        seen = watched.site(layer.index, site)
        seen.heads = outputs.heads if watched.heads else None
        seen.attention = outputs.attention
        seen.keys = outputs.keys
        if outputs.attention is not None or outputs.keys is not None:
            seen.layout = layer.layout(state, site)
    after = layer.project(state, site, outputs)
    if for_reducer or (after.features and outputs.heads.shape[2]):
        # Those of an earlier layer are not this one's.
        after = replace(after, features=outputs.features)
    return Step("attention", layer.index, state, after, layer, site, outputs)


def _reductions(
    points: ReductionPoints | None, state: TokenState, index: int, layer: Layer | None, places: tuple[Place, ...]
) -> Iterator[Step]:
    if points is None:
        return
    for place in places if state.patches else ():
        reduced = points.reduced(place, state)
        if reduced is not state:
            yield Step("reduction", index, state, reduced, layer)
            state = reduced
    if places[-1].kind == "layer" and (trimmed := points.trimmed(state, index)) is not state:
        yield Step("reduction", index, state, trimmed, layer)
