"""The few types that several rooms share. This module imports nothing of Sightline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from torch import Tensor


@dataclass(frozen=True)
class InputSpec:
    """The clip that a backbone takes: ``frames`` frames of ``height`` x ``width`` pixels, three channels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Site:
    """One multi-head attention inside a layer (TimeSformer has two per layer, the other families one).

    Attributes:
        name: ``attention``, or ``temporal`` and ``spatial`` where a layer has two.
        heads: Original indices of the heads that exist, ascending (pruning a head leaves a gap).
    """

    name: str
    heads: tuple[int, ...]


@dataclass(frozen=True)
class LayerInfo:
    """What a backbone tells about one of its layers.

    Attributes:
        index: Original index, also after other layers were removed.
        stage: Index of the stage (resolution and width) that the layer belongs to.
        sites: Its attention sites, in the order in which they run.
        removable: Whether the layer can be cut out.
        reason: Why not, where ``removable`` is false.
    """

    index: int
    stage: int
    sites: tuple[Site, ...]
    removable: bool = True
    reason: str = ""


@dataclass(frozen=True, order=True)
class Unit:
    """A unit of ablation: a whole layer (``site`` is "" and ``head`` is -1) or one head of one site."""

    layer: int
    site: str = ""
    head: int = -1

    @property
    def is_layer(self) -> bool:
        return self.head < 0

    def __str__(self) -> str:
        return f"layer {self.layer}" if self.is_layer else f"layer {self.layer} {self.site} head {self.head}"


class ClipBatch(TypedDict):
    """What a data module's loader yields.

    Attributes:
        clip: uint8 (B, 3, T, H, W), RGB.
        label: int64 (B,).
        sample_id: B unique, stable names.
        group: B names of what samples share: the subject, or class and group for UCF101.
        unreadable: (sample_id, reason) of the samples that should have been in this batch and could not be read.
    """

    clip: Tensor
    label: Tensor
    sample_id: list[str]
    group: list[str]
    unreadable: list[tuple[str, str]]


@dataclass(frozen=True)
class ModelRecord:
    """What belongs to a set of weights but is not in its state dict; it travels with every export.

    Attributes:
        mean: Per-channel mean of the [0, 1] pixels that the weights were trained with.
        std: Per-channel standard deviation, likewise.
        class_names: Names of the classes in the order of the logits; empty where unknown.
        source: Where the weights come from, in words.
    """

    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    class_names: tuple[str, ...] = field(default=())
    source: str = "random initialisation"
