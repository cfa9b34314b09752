"""The contract of every backbone: an embedding, a sequence of layers, a classifier.

    state = backbone.embed(clips)              # (B, 3, T, H, W), uint8 or float in [0, 1]
    state = backbone.run(state, start, stop)   # layers start..stop-1
    logits = backbone.classify(state)          # (B, classes)

``forward`` is exactly these three. Interventions (skipping layers, gating heads, dropping tokens) and observation are
arguments of a call, never a state of the module: nothing can be left behind, not even by an exception.

Shapes: B clips, N tokens, D width, h heads of a site.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sightline.backbones.contract.layer import Layer
from sightline.backbones.contract.observation import FEATURES, Feature, Gates, Observer
from sightline.backbones.contract.reducer import Place, Reducer, ReductionPoints
from sightline.backbones.contract.state import TokenState
from sightline.backbones.contract.steps import last_state, run_steps
from sightline.types import InputSpec, LayerInfo, ModelRecord, Unit


class Backbone(nn.Module, ABC):
    """A video transformer as a sequence of layers between an embedding and a classifier.

    Attributes:
        family: Name of the architecture family.
        config: The family's configuration (a frozen dataclass).
        input_spec: The clips that it was built for.
        depth: Number of layers it was built with. Layer indices are always the original ones, 0..depth-1.
        record: Normalisation, class names and origin of the weights.
        reducer: What a token reduction has learned for this backbone; None where there is nothing. It travels with the
            weights, under ``reducer.`` in the state dict, and takes part in a run only as that reduction reads it.
        reads_class_tokens: Whether `classify` reads class tokens alone.
        dropped_tokens: What layers do where tokens were dropped. ``left_out``: attend among those that are left.
            ``filled``: fill the cells of dropped tokens with the nearest that are left, attend, and discard what comes
            out at these cells. ``refused``: the family cannot run without all of its tokens.
        refilled: Whether dropped tokens are filled in for good between any two of `reduction_places`.
        shown_features: What layers can show a reducer of their tokens.
        own_keys: Whether every token has a key of its own; where keys are pooled, several share one.
        square_attention: Whether the queries of every site are its keys, and the tokens of all layers the same, so that
            the attention of several layers can be multiplied.
        no_weight_decay: Last parts of the names of parameters that weight decay leaves alone, besides all that have
            fewer than two dimensions: learned positions and class tokens.
        end_layers: How many of the first layers count as early, and of the last as deep, unless asked otherwise.
    """

    family: str
    config: Any
    reads_class_tokens: bool = False
    dropped_tokens: Literal["left_out", "filled", "refused"] = "refused"
    refilled: bool = False
    shown_features: frozenset[Feature] = frozenset(FEATURES)
    own_keys: bool = True
    square_attention: bool = False
    no_weight_decay: frozenset[str] = frozenset()
    end_layers: int = 2
    reducer: nn.Module | None
    _mean: Tensor
    _std: Tensor

    def __init__(self, config: Any, input_spec: InputSpec, depth: int, record: ModelRecord | None = None) -> None:
        super().__init__()
        self.config = config
        self.input_spec = input_spec
        self.depth = depth
        self.register_module("reducer", None)
        self.set_record(record or ModelRecord())

    # What a family writes -------------------------------------------------------------------------------------------

    @abstractmethod
    def tokenize(self, pixels: Tensor) -> TokenState:
        """Turn normalised pixels (B, 3, T, H, W) into the state before layer 0."""

    @abstractmethod
    def layer_modules(self) -> dict[int, Layer]:
        """Return the layers that exist, by original index, in order."""

    @abstractmethod
    def delete_layer(self, index: int) -> None:
        """Delete the module of a layer."""

    @abstractmethod
    def classify(self, state: TokenState) -> Tensor:
        """Return the logits, (B, classes), of the state after the last layer."""

    @abstractmethod
    def classifier_keys(self) -> tuple[str, ...]:
        """Return the names of the classifier's entries in the state dict."""

    @abstractmethod
    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a freshly initialised one."""

    def before_layer(self, index: int, state: TokenState) -> TokenState:
        """Run what stands before a layer without being part of it (Video Swin's patch merging)."""
        return state

    def adapt(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Fit positional parameters of another number of frames or another size to this model.

        Args:
            tensors: A state dict under this family's names.

        Returns:
            The state dict, and one sentence for each tensor that was interpolated.
        """
        return dict(tensors), []

    # What all families share ----------------------------------------------------------------------------------------

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """Original index of the first layer of every stage, whether it still exists or not."""
        return (0,)

    @property
    def reduction_places(self) -> tuple[Place, ...]:
        """Where token reduction that does not say otherwise drops tokens: after layers 0, L/3 and 2L/3, rounded down.

        Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", 2023 (section 4.1).
        """
        return tuple(Place("layer", index) for index in sorted({0, self.depth // 3, 2 * self.depth // 3}))

    @property
    def reduction_grids(self) -> tuple[tuple[int, int, int], ...]:
        """Grid (T, H, W) of the tokens at each of `reduction_places`, as far as the family can drop tokens.

        Raises:
            ValueError: If the family does not say.
        """
        raise ValueError(
            f"{self.family} does not say on which grids its tokens lie, so how many of them to drop cannot be worked "
            "out. Define reduction_grids in the family's file."
        )

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers that exist, each with its original index."""
        return tuple(layer.info() for layer in self.layer_modules().values())

    def set_record(self, record: ModelRecord) -> None:
        """Take over normalisation, class names and origin of the weights."""
        self.record = record
        # Buffers follow the module to its device; not persistent, so that state dicts keep the reference's keys.
        self.register_buffer("_mean", torch.tensor(record.mean).view(1, 3, 1, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(record.std).view(1, 3, 1, 1, 1), persistent=False)

    def embed(self, clips: Tensor, reducer: Reducer | None = None) -> TokenState:
        """Check and normalise clips, and turn them into tokens.

        Args:
            clips: (B, 3, T, H, W), uint8 or float in [0, 1].
            reducer: Chooses the tokens to go on with; `run` must be given the same one.

        Raises:
            ValueError: If the clips have another shape or type than the backbone was built for.
        """
        spec = self.input_spec
        expected = (3, spec.frames, spec.height, spec.width)
        if clips.dim() != 5 or tuple(clips.shape[1:]) != expected:
            raise ValueError(
                f"{self.family} was built for clips (B, 3, {spec.frames}, {spec.height}, {spec.width}), got "
                f"{tuple(clips.shape)}. Set the data module's frames and size and the model's to the same values."
            )
        if clips.dtype == torch.uint8:
            pixels = clips.to(self._mean.dtype) / 255
        elif clips.is_floating_point():
            pixels = clips
        else:
            raise ValueError(f"Clips must be uint8 or float in [0, 1], got {clips.dtype}.")
        state = self.tokenize((pixels - self._mean) / self._std)
        state = replace(state, embedding_grid=state.grid)
        if reducer is None:
            return state
        points = ReductionPoints(self, reducer)
        state = replace(state, pixels=clips if points.need_pixels else None)
        return points.trimmed(points.reduced(Place("embedding"), state), -1)

    def run(
        self,
        state: TokenState,
        start: int = 0,
        stop: int | None = None,
        *,
        skip: Collection[int] = (),
        gates: Gates | None = None,
        observer: Observer | None = None,
        reducer: Reducer | None = None,
    ) -> TokenState:
        """Run layers start..stop-1 (original indices; layers that were pruned away are passed over).

        Args:
            state: The state before layer ``start``.
            start: First layer.
            stop: One past the last layer; all that follow if None.
            skip: Layers to ablate in this call: replaced by the identity (or by their shortcut, see `Layer.shortcut`).
            gates: Factor of every head of a site, (h,) or (B, h), by (layer, site).
            observer: What to keep of the sites, see `Observer`.
            reducer: Chooses the tokens to go on with, see `Reducer`; the same one that `embed` was given.
        """
        steps = run_steps(self, state, start, stop, skip=skip, gates=gates, observer=observer, reducer=reducer)
        return last_state(steps, state)

    def readout(
        self, state: TokenState, start: int = 0, *, sites_done: int = 0, reducer: Reducer | None = None
    ) -> Tensor:
        """Return the logits from a state before layer ``start``: `run` and `classify`, without what nobody reads.

        Where `classify` reads class tokens alone, the last layer computes no others. Needs evaluation mode. The logits
        are those of `run` and `classify` but for rounding.

        Args:
            state: The state before layer ``start``, or inside it.
            start: First layer.
            sites_done: How many attention sites of that layer have run already.
            reducer: Chooses the tokens to go on with.
        """
        steps = run_steps(self, state, start, sites_done=sites_done, reducer=reducer, logits_only=True)
        return self.classify(last_state(steps, state))

    def last_read_layer(self) -> int | None:
        """Return the last layer that exists if only its class tokens are read; None where all tokens are."""
        return max(self.layer_modules(), default=None) if self.reads_class_tokens else None

    def forward(
        self,
        clips: Tensor,
        *,
        skip: Collection[int] = (),
        gates: Gates | None = None,
        observer: Observer | None = None,
        reducer: Reducer | None = None,
    ) -> Tensor:
        """Return the logits (B, classes) of clips (B, 3, T, H, W); keywords as in `run`."""
        state = self.embed(clips, reducer)
        return self.classify(self.run(state, skip=skip, gates=gates, observer=observer, reducer=reducer))

    def units(self, kind: str) -> list[Unit]:
        """Return everything that can be ablated, ``layers`` or ``heads``, in order."""
        if kind == "layers":
            return [Unit(info.index) for info in self.layers]
        if kind == "heads":
            return [Unit(i.index, site.name, head) for i in self.layers for site in i.sites for head in site.heads]
        raise ValueError(f"kind must be 'layers' or 'heads', got {kind!r}.")

    def check_removable(self, layers: Collection[int]) -> None:
        """Raise ValueError, naming backbone, layer and reason, where a layer cannot be removed."""
        infos = {info.index: info for info in self.layers}
        for index in layers:
            if index not in infos:
                raise ValueError(
                    f"{self.family} has no layer {index} to remove; its layers are {', '.join(map(str, infos))}."
                )
            if not infos[index].removable:
                raise ValueError(f"{self.family} cannot remove layer {index}: {infos[index].reason}.")

    def without(self, layers: Collection[int]) -> Backbone:
        """Return a copy in which these layers, and their parameters, do not exist.

        Raises:
            ValueError: If a layer does not exist or cannot be removed.
        """
        self.check_removable(layers)
        smaller = copy.deepcopy(self)
        for index in set(layers):
            smaller.delete_layer(index)
        return smaller

    def without_heads(self, units: Iterable[Unit]) -> Backbone:
        """Return a copy in which these heads, and their parameters, do not exist.

        Raises:
            ValueError: If a head does not exist.
        """
        units = list(units)
        missing = sorted(set(units) - set(self.units("heads")))
        if missing:
            raise ValueError(f"{self.family} has no {', '.join(map(str, missing))} to remove.")
        smaller = copy.deepcopy(self)
        modules = smaller.layer_modules()
        for layer, site in sorted({(unit.layer, unit.site) for unit in units}):
            wanted = {unit.head for unit in units if (unit.layer, unit.site) == (layer, site)}
            heads = next(s.heads for s in modules[layer].sites if s.name == site)
            modules[layer].remove_heads(site, [i for i, head in enumerate(heads) if head in wanted])
        return smaller
