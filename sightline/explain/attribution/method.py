"""The contract of every attribution method: how much each part of a clip has to do with the score of one class.

A method is a frozen dataclass; its fields, all with defaults, are its options. It names no family: what it needs it
asks of a backbone by the arguments of a call (observer, gates, reducer), or it says why it cannot.

Shapes: B clips, (T, H, W) cells of a map.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.cell_map import CellMap
from sightline.explain.methods.head_maps import require_evaluation


@dataclass(frozen=True)
class Passes:
    """How often the whole model runs for one clip; a part of it counts as that part of a pass."""

    forward: float = 0.0
    backward: float = 0.0


@dataclass(frozen=True)
class Attribution:
    """What a method says of a batch of clips.

    Attributes:
        cells: Value of every cell. Higher is more in favour of the class; below 0 is against it, in methods that can
            tell. Only the order of the cells of one clip means the same in all methods.
        frames: Importance of each of the map's T frames of cells, float32 (B, T), of a method that measures time by
            itself and not as a sum over space; None of the others.
        passes: What one clip took.
        seconds: What the batch took, per clip. Filled in by `attribute`.
    """

    cells: CellMap
    frames: Tensor | None = None
    passes: Passes = Passes()
    seconds: float = 0.0

    @property
    def by_frame(self) -> Tensor:
        """Importance of each frame of cells, (B, T): the method's own, or else the sum over space."""
        return self.cells.values.sum(dim=(2, 3)) if self.frames is None else self.frames


@dataclass(frozen=True)
class Method(ABC):
    """An attribution method.

    Attributes:
        name: What tables and command lines call it.
        control: Whether it looks at no model, or at none that was trained: what a method has to beat.
        needs_gradients: Whether it runs backward passes.
    """

    name: ClassVar[str]
    control: ClassVar[bool] = False
    needs_gradients: ClassVar[bool] = False

    def check(self, backbone: Backbone) -> None:  # noqa: B027 - most work with every family
        """Raise ValueError, in one line that names the reason and what would do, where it cannot work."""

    @abstractmethod
    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        """Return what each cell has to do with the target's score.

        Args:
            backbone: In evaluation mode; parameters may be frozen. Nothing may be left behind in it.
            clips: (B, 3, T, H, W), uint8 or float in [0, 1]. Each clip's result depends on that clip alone.
            targets: Class of every clip, int64 (B,).
        """


def attribute(method: Method, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
    """Check and time a method on a batch of clips; arguments as of `Method.attribute`.

    Raises:
        ValueError: If the backbone trains, the method cannot work with it, or targets do not fit clips and classes.
    """
    require_evaluation(backbone)
    method.check(backbone)
    classes = backbone.config.num_classes
    if targets.shape != (len(clips),) or targets.dtype != torch.int64:
        raise ValueError(f"Expected one class per clip, int64 ({len(clips)},), got {targets.dtype} {targets.shape}.")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ValueError(f"Expected classes from 0 to {classes - 1}, got {targets.unique().tolist()}.")
    _wait_for(clips.device)
    started = time.perf_counter()
    found = method.attribute(backbone, clips, targets.to(clips.device))
    _wait_for(clips.device)
    if not bool(torch.isfinite(found.cells.values).all()):
        raise ValueError(f"{method.name} gave values that are not finite: the model overflowed. Run it in float32.")
    return replace(found, seconds=(time.perf_counter() - started) / max(len(clips), 1))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
