"""A clip, and its frames as a tensor."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

import av
import torch
import torchvision
from torch import Tensor

from sightline.video import transforms
from sightline.video.decoding import READING, Decoder
from sightline.video.frame_cache import FrameCache
from sightline.video.preprocessing import Preprocessing
from sightline.video.sources import VideoFile
from sightline.video.torchcodec_decoding import require_torchcodec


@dataclass(frozen=True)
class Clip:
    """One labelled clip: a video file, or the part of it between two times or two frames.

    Attributes:
        sample_id: A unique name that does not depend on where the data lie.
        path: The video file.
        label: Index of the class.
        group: What related clips share and no two splits may: the subject, or class and group for UCF101.
        start: Where the clip begins in the file, in seconds; None for the beginning.
        end: Where it ends; None for the end.
        split: ``train``, ``val`` or ``test``.
        frame_range: Instead of start and end: the first frame and the one behind the last, counted in the whole video.
        segment: What the clips share that were cut from one continuous action; empty where a clip stands for itself.
    """

    sample_id: str
    path: str
    label: int
    group: str
    start: float | None = None
    end: float | None = None
    split: str = "train"
    frame_range: tuple[int, int] | None = None
    segment: str = ""


@dataclass(frozen=True)
class ClipSettings(Preprocessing):
    """How a clip becomes a tensor, in training and multi-view testing too; see `ClipDataModule` for the fields.

    Attributes:
        train_size: Height and width of the square that training cuts, where it is not ``size``: room for the random
            resized crop, which is cut out of this square on the model's device.
    """

    train_crop: Literal["random", "center"] = "random"
    train_size: int | None = None
    test_clips: int = 1
    test_crops: Literal[1, 3] = 1
    decoder: Decoder = "pyav"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_crop not in ("random", "center"):
            raise ValueError(f"Expected train_crop 'random' or 'center', got {self.train_crop!r}.")
        if self.test_clips < 1 or self.test_crops not in (1, 3):
            raise ValueError(
                f"Expected test_clips >= 1 and test_crops 1 or 3, got test_clips={self.test_clips} and "
                f"test_crops={self.test_crops}."
            )
        if self.decoder not in get_args(Decoder):
            raise ValueError(f"Expected decoder 'pyav' or 'torchcodec', got {self.decoder!r}.")
        if self.decoder == "torchcodec":
            require_torchcodec()


def load_clip(
    clip: Clip, settings: ClipSettings, chance: random.Random | None = None, cache: FrameCache | None = None
) -> Tensor:
    """Read a clip as uint8 (3, T, size, size).

    Args:
        clip: The clip.
        settings: Frames and sizes.
        chance: Source of training's random offset and place; None for the fixed view of evaluation.
        cache: Where the frames of the fixed view are kept; training's random offset would seldom find them again.

    Raises:
        UnreadableClip: Where its file has not got the frames.
    """
    offset, down, across, size = 0.5, 0.5, 0.5, settings.size
    if chance is not None:
        # All are drawn whatever the settings, so that changing one of them leaves the others' draws alone.
        offset, drawn_down, drawn_across = (chance.random() for _ in range(3))
        size = settings.train_size or size
        if settings.train_crop == "random":
            down, across = drawn_down, drawn_across
    frames = _resized_frames(clip, settings, settings.frames, offset, cache if chance is None else None)
    return transforms.cut_square(frames, size, down, across)


def load_views(clip: Clip, settings: ClipSettings, *, cache: FrameCache | None = None) -> Tensor:
    """Read the views of a clip that multi-view testing averages, as uint8 (V, 3, T, size, size).

    The moments of view k of K are those at (k + 0.5) / K of each of T equal parts of the clip, so that every view
    covers all of it, and one view is that of `load_clip`. The places of each view's crops follow one another.

    Raises:
        UnreadableClip: Where its file has not got the frames.
    """
    # Part i of T at (k + 0.5) / K is part i K + k of T K at its middle.
    frames = _resized_frames(clip, settings, settings.frames * settings.test_clips, 0.5, cache)
    corners = transforms.view_corners(frames.shape[1], frames.shape[2], settings.size, settings.test_crops)
    views = [
        transforms.channels_first(transforms.crop(frames[k :: settings.test_clips], corner, settings.size))
        for k in range(settings.test_clips)
        for corner in corners
    ]
    return torch.stack(views)


def _resized_frames(clip: Clip, settings: ClipSettings, wanted: int, offset: float, cache: FrameCache | None) -> Tensor:
    """Frames (T, H, W, 3) from the same place in each of ``wanted`` equal parts, from the cache if they are there."""
    key = None
    if cache is not None:
        versions = (READING, av.__version__, torch.__version__, torchvision.__version__)
        key = cache.key(
            clip.path,
            part=(clip.start, clip.end, clip.frame_range),
            sampling=("segment_frames", wanted, offset),
            resizing=(settings.short_side, settings.antialias),
            versions=versions if settings.decoder == "pyav" else (*versions, require_torchcodec()),
        )
        kept = None if key is None else cache.read(key)
        if kept is not None:
            return torch.from_numpy(kept)
    source = VideoFile(clip.path, settings.decoder)
    frames = settings.resized_frames(source, clip.start, clip.end, clip.frame_range, wanted, offset)
    if cache is not None and key is not None:
        cache.write(key, frames)
    return torch.from_numpy(frames)
