"""Clips read on demand and joined to batches; what happens when one cannot be read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sightline.types import ClipBatch
from sightline.video.clips import Clip, ClipSettings, load_clip, load_views
from sightline.video.decoding import UnreadableClip
from sightline.video.frame_cache import FrameCache

SPLITS = ("train", "val", "test")
_SUBSTITUTES = 5  # a class of which six random clips are all unreadable has a problem that trying on would hide


@dataclass(frozen=True)
class Sample:
    """What reading one clip gave: the frames (3, T, H, W) of ``clip`` unless it was unreadable, and what was.

    In multi-view testing the frames are (V, 3, T, H, W). Training's samples have the seed of their augmentation.
    """

    clip: Clip | None
    frames: Tensor | None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    seed: int | None = None


class ClipDataset(Dataset[Sample]):
    """Clips read on demand. Training sees each in a new way every epoch, evaluation always in the same.

    In evaluation an unreadable clip is left out. In training another clip of its class takes its place, always the same
    one for a given seed and epoch. Either way the batch names it.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        settings: ClipSettings | None = None,
        training: bool = False,
        seed: int = 0,
        views: bool = False,
        cache: FrameCache | None = None,
    ) -> None:
        """Store what to read.

        Args:
            clips: The clips.
            settings: How they become tensors.
            training: Whether each is seen in a new way every epoch.
            seed: Fixes training's draws.
            views: Whether evaluation gives all views that multi-view testing averages.
            cache: Where evaluation keeps what it reads.
        """
        self.clips = list(clips)
        self.settings = settings or ClipSettings()
        self.training = training
        self.seed = seed
        self._load = load_views if views else load_clip
        self.cache = cache

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        """Read the clip at an index, or at (number of the random view, index); the number is mostly the epoch."""
        view, index = item if isinstance(item, tuple) else (0, item)
        clip = self.clips[index]
        if not self.training:
            try:
                return Sample(clip, self._load(clip, self.settings, cache=self.cache))
            except UnreadableClip as error:
                return Sample(None, None, [(clip.sample_id, error.reason)])
        # A string of seed, view and name gives the same draws in every process, whatever the number of workers.
        chance = random.Random(f"{self.seed}/{view}/{clip.sample_id}")
        unreadable: list[tuple[str, str]] = []
        for candidate in self._candidates(clip, chance):
            try:
                frames = load_clip(candidate, self.settings, chance)
                return Sample(candidate, frames, unreadable, seed=chance.getrandbits(63))
            except UnreadableClip as error:
                unreadable.append((candidate.sample_id, error.reason))
        return Sample(None, None, unreadable)

    def _candidates(self, clip: Clip, chance: random.Random) -> Iterator[Clip]:
        yield clip
        others = [other for other in self.clips if other.label == clip.label and other.sample_id != clip.sample_id]
        yield from chance.sample(others, min(_SUBSTITUTES, len(others)))


def collate(samples: Sequence[Sample], shape: tuple[int, int, int] = (0, 0, 0)) -> ClipBatch:
    """Join samples to a batch of those that could be read.

    Args:
        samples: What the dataset gave.
        shape: T, H, W of the empty tensor that stands for a batch without any readable clip.
    """
    clips, frames, seeds = [], [], []
    for sample in samples:
        if sample.clip is not None and sample.frames is not None:
            clips.append(sample.clip)
            frames.append(sample.frames)
            seeds += [] if sample.seed is None else [sample.seed]
    return ClipBatch(
        # The views of a sample, where it has several, follow one another: (B, V, 3, T, H, W) -> (B V, 3, T, H, W).
        clip=torch.stack(frames).flatten(0, -5) if frames else torch.zeros((0, 3, *shape), dtype=torch.uint8),
        label=torch.tensor([clip.label for clip in clips], dtype=torch.int64),
        sample_id=[clip.sample_id for clip in clips],
        group=[clip.group for clip in clips],
        seed=seeds,
        unreadable=[pair for sample in samples for pair in sample.unreadable],
    )
