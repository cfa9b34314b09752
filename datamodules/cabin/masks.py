"""Which pixels the objects of a rendered clip cover, from the very shapes that are drawn, in frames of any size.

Shapes are described in scene units, so that masks are drawn anew in the size in which they are wanted and not resized.
As boxes do, they hold what is hidden behind something else, and what is only just fading in.

This module imports neither torch nor Lightning.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.cabin.canvas import Camera, Canvas, Floats, Region, per_frame
from datamodules.cabin.files import OBJECTS, CabinSettings, perform
from datamodules.cabin.scene import camera_of, draw_scene

Mask = NDArray[np.bool_]


class MaskCanvas(Canvas):
    """Paints nothing, and notes which pixels are covered while a name is being tracked.

    Attributes:
        masks: Name -> pixels whose centre lies in one of the name's shapes, (T, H, W).
    """

    def __init__(self, frames: int, camera: Camera, names: Iterable[str]):
        super().__init__(frames, camera)
        self.masks: dict[str, Mask] = {
            name: np.zeros((frames, camera.height, camera.width), dtype=np.bool_) for name in names
        }

    def _open(self, centre: Floats, reach: tuple[Floats, Floats], look: dict) -> Region | None:
        region = super()._open(centre, reach, look)
        return region if self.masks.keys() & self._tracked else None

    def _blend(
        self,
        region: Region,
        distance: Floats,
        tone: ArrayLike,
        rho: Floats | None,
        flank: Floats | None,
        alpha: ArrayLike = 1.0,
        relief: float = 0.3,
        soft: float = 0.0,
        shadow: float = 0.0,
    ) -> None:
        inside = (distance <= 0) & (per_frame(alpha) > 0)
        for name in self.masks.keys() & self._tracked:
            self.masks[name][:, region[0], region[1]] |= inside


def clip_masks(
    settings: CabinSettings, subject: int, action: str, repetition: int, height: int, width: int
) -> dict[str, Mask]:
    """Return the masks of `OBJECTS` in a clip whose frames have another size.

    Args:
        settings: Of the data set.
        subject: Whose clip.
        action: Of which action.
        repetition: Which of these.
        height: Height of the frames; proportions are those of the data set, to a pixel.
        width: Their width.

    Returns:
        Object -> pixels whose centre it covers, (T, height, width). A part that is thinner than a pixel may cover none.
    """
    pose, _ = perform(settings, subject, action, repetition)
    names = {kind: pose.key if kind == "key_object" else kind for kind in OBJECTS}
    canvas = MaskCanvas(pose.frames, camera_of(pose.appearance, height, width, settings.zoom), names.values())
    draw_scene(canvas, pose)
    return {kind: canvas.masks[name] for kind, name in names.items()}
