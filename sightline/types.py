"""The few types that several rooms share. This module imports nothing of Sightline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:  # a page of results and a comparison read these types, and need no PyTorch
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
        clip: uint8 (B, 3, T, H, W), RGB. In multi-view testing (B V, 3, T, H, W): each sample's V views in a row.
        label: int64 (B,).
        sample_id: B unique, stable names.
        group: B names of what samples share: the subject, or class and group for UCF101.
        seed: B seeds of training's augmentation; empty in evaluation.
        unreadable: (sample_id, reason) of the samples that should have been in this batch and could not be read.
    """

    clip: Tensor
    label: Tensor
    sample_id: list[str]
    group: list[str]
    seed: list[int]
    unreadable: list[tuple[str, str]]


class Box(NamedTuple):
    """Where something is in one frame of a clip; pixel (0, 0) covers [0, 1) x [0, 1).

    Attributes:
        name: What it is, e.g. ``hand``; several things may have one name.
        frame: Index of the frame.
        x0: Left edge in pixels.
        y0: Upper edge.
        x1: Right edge.
        y1: Lower edge.
    """

    name: str
    frame: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class ClipTruth:
    """What is known of a clip, in the frames and pixels of a model's input.

    Attributes:
        boxes: Where things are; what has no box in a frame is not to be seen there.
        acting: Whether the clip's action is under way, by frame; empty where that is not known.
        masks: Pixels that things cover, bool (T, H, W) by their name, also where something else hides them; nothing in
            frames in which they have no box. Empty where that is not known, or was not asked for.
    """

    boxes: tuple[Box, ...] = ()
    acting: tuple[bool, ...] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class ModelRecord:
    """What belongs to a set of weights but is not in its state dict; it travels with every export.

    Attributes:
        mean: Per-channel mean of the [0, 1] pixels that the weights were trained with.
        std: Per-channel standard deviation, likewise.
        class_names: Names of the classes in the order of the logits; empty where unknown.
        source: Where the weights come from, in words.
        source_frames: Frames per clip that the weights it started from were trained with; None where unknown.
        source_stride: Distance of these frames in the video, in frames; None where unknown.
        source_classes: Names of the classes that these weights told apart; empty where unknown.
    """

    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    class_names: tuple[str, ...] = field(default=())
    source: str = "random initialisation"
    source_frames: int | None = None
    source_stride: int | None = None
    source_classes: tuple[str, ...] = field(default=())

    def plain(self) -> dict[str, Any]:
        """Return all but the class names, which files keep elsewhere, as plain values for JSON and checkpoints."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "source": self.source,
            "source_frames": self.source_frames,
            "source_stride": self.source_stride,
            "source_classes": list(self.source_classes),
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], class_names: Iterable[str] = ()) -> ModelRecord:
        """Rebuild a record; what an older file does not say stays unknown.

        Raises:
            KeyError: If mean, std or source is missing.
            ValueError: If mean or std has not three values, or a value is not of its kind.
        """
        mean, std = (tuple(float(value) for value in values[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"mean and std must have three values each, got {mean} and {std}.")
        frames, stride = (values.get(key) for key in ("source_frames", "source_stride"))
        return cls(
            mean,
            std,
            tuple(map(str, class_names)),
            str(values["source"]),
            None if frames is None else int(frames),
            None if stride is None else int(stride),
            tuple(map(str, values.get("source_classes") or ())),
        )
