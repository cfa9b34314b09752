"""The embedded data set: rendered clips of 20 driver actions, in the place of recordings that cannot be shared."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from datamodules.cabin.actions import ACTIONS
from datamodules.cabin.files import (
    DONE,
    Box,
    CabinSettings,
    ClipName,
    clip_boxes,
    folder_in,
    perform,
    render_clip,
    video_name,
    write_cabin,
)
from datamodules.cabin.masks import clip_masks
from datamodules.driver_clips import DriverClips
from sightline.types import Box as TruthBox
from sightline.types import ClipTruth
from sightline.video.boxes import ACTION, in_input, input_square
from sightline.video.clips import Clip
from sightline.video.sampling import uniform_indices

__all__ = ["ACTIONS", "Box", "CabinSettings", "SyntheticCabin", "clip_boxes", "render_clip", "write_cabin"]

# What things are called by their kind: which hand it is, or which object, depends on the clip.
_KINDS = {"head": "head", "right_hand": "hand", "left_hand": "hand", "key_object": "object"}


class SyntheticCabin(DriverClips):
    """Rendered near-infrared clips of a driver seen from the mirror; needs no download and is rendered on first use."""

    def __init__(
        self,
        root: str = "data/synthetic_cabin",
        actions: list[str] | None = None,
        subjects: int = 20,
        clips_per_action: int = 6,
        clip_frames: int = 16,
        clip_fps: float = 8.0,
        clip_size: int = 112,
        clip_zoom: float = 1.0,
        clip_seed: int = 0,
        render_workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Store the settings; clips are rendered when training prepares its data, unless they are there already.

        Args:
            root: Folder in which every combination of the settings below gets a folder of its own.
            actions: Actions to render, in the order of the labels; by default all 20.
            subjects: Number of drivers; they differ in build, clothes, light and camera, and no split shares one.
            clips_per_action: Clips of every action by every driver.
            clip_frames: Frames per rendered clip. What a model sees of them is set by frames.
            clip_fps: Frames per second that the files state.
            clip_size: Height and width of the rendered frames, even. What a model sees is set by size.
            clip_zoom: Magnification; above 1 the camera comes closer to driver and console, for small frames.
            clip_seed: Fixes what is rendered, apart from seed, which fixes the splits and the order.
            render_workers: Processes that render; by default one for small data sets, else one per core.
            kwargs: Settings of ClipDataModule.
        """
        self.cabin = CabinSettings(
            actions=ACTIONS if actions is None else tuple(actions),
            subjects=subjects,
            clips_per_action=clips_per_action,
            frames=clip_frames,
            fps=clip_fps,
            height=clip_size,
            width=clip_size,
            seed=clip_seed,
            zoom=clip_zoom,
        )
        super().__init__(
            root=str(folder_in(root, self.cabin)), annotations=None, classes=list(self.cabin.actions), **kwargs
        )
        self.render_workers = render_workers

    @property
    def class_names(self) -> list[str]:
        """Names of the actions, in the order of the labels; known before anything is rendered."""
        return list(self.cabin.actions)

    def prepare_data(self) -> None:
        """Render what is not there yet."""
        write_cabin(self.root, self.cabin, self.render_workers)

    def read_clips(self) -> tuple[list[str], list[Clip]]:
        """Read the list of the rendered clips."""
        if not (self.root / DONE).is_file():
            raise FileNotFoundError(
                f"Expected rendered clips in {self.root}, but there are none or not all. Call prepare_data() first; "
                "the Trainer does so by itself."
            )
        return super().read_clips()

    @cached_property
    def _names(self) -> dict[str, ClipName]:
        return {video_name(name): name for name in self.cabin.names()}

    @cached_property
    def _boxes(self) -> dict[str, list[TruthBox]]:
        """What is visible of `OBJECTS` in the rendered frames, by sample_id."""
        found: dict[str, list[TruthBox]] = {video_name(name): [] for name in self.cabin.names()}
        columns = ["video", "object", "frame", "x0", "y0", "x1", "y1", "visible"]
        for row in pq.read_table(self.root / "boxes.parquet", columns=columns).to_pylist():
            if row["visible"]:
                edges = (row[edge] for edge in ("x0", "y0", "x1", "y1"))
                found[row["video"]].append(TruthBox(row["object"], row["frame"], *edges))
        return found

    @property
    def _taken(self) -> list[int]:
        """The rendered frames that evaluation sees."""
        return uniform_indices(self.cabin.frames, self.settings.frames)

    def truth(self, clip: Clip, masks: bool = False) -> ClipTruth:
        """The boxes of head, hands and the action's key object, and the frames in which the action is under way."""
        acting = perform(self.cabin, *self._names[clip.sample_id])[0].acting > 0.5
        times = [TruthBox(ACTION, int(frame), 0, 0, 0, 0) for frame in acting.nonzero()[0]]
        boxes = [box._replace(name=_KINDS[box.name]) for box in self._boxes[clip.sample_id]] + times
        found = in_input(boxes, self._taken, self.cabin.height, self.cabin.width, self.settings)
        return replace(found, masks=self._masks(clip.sample_id)) if masks else found

    def _masks(self, sample_id: str) -> dict[str, Tensor]:
        """The pixels of head, hands and key object, each in the frames in which it has a box."""
        size, taken = (self.cabin.height, self.cabin.width), self._taken
        resized, (top, left) = input_square(*size, self.settings)
        drawn = clip_masks(self.cabin, *self._names[sample_id], *resized)
        shown = {(box.name, box.frame) for box in in_input(self._boxes[sample_id], taken, *size, self.settings).boxes}
        found: dict[str, Tensor] = {}
        for thing, mask in drawn.items():
            square = mask[taken, top : top + self.settings.size, left : left + self.settings.size]
            boxed = torch.tensor([(thing, frame) in shown for frame in range(len(taken))])
            own = torch.from_numpy(square) & boxed[:, None, None]
            kind = _KINDS[thing]
            found[kind] = found[kind] | own if kind in found else own
        return found
