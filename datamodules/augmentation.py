"""Training's augmentations, on batches that are on the model's device already; clips stay uint8.

Every clip has a seed, drawn from the data's seed, the epoch and the clip's name. What happens to a clip depends on
nothing else: not on its batch, the number of workers or ranks, or the device. All frames of a clip get the same draw.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

Steps = Mapping[str, v2.Transform]

_MAGNITUDES = 31  # RandAugment's scale in torchvision: 0 (nothing) to 30


@dataclass(frozen=True)
class Augmentation:
    """Which augmentations there are; see `ClipDataModule` for the fields."""

    flip_probability: float = 0.0
    random_resized_crop: tuple[float, float] | None = None
    color_jitter: float = 0.0
    rand_augment: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"Expected flip_probability between 0 and 1, got {self.flip_probability}.")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"Expected color_jitter between 0 (none) and 1, got {self.color_jitter}.")
        scale = self.random_resized_crop
        if scale is not None and not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(
                "Expected random_resized_crop as [smallest, largest] share of the frame's square, "
                f"0 < smallest <= largest <= 1, e.g. [0.5, 1.0], got {list(scale)}."
            )
        rand = self.rand_augment
        if rand is not None and not (len(rand) == 2 and rand[0] >= 1 and 0 <= rand[1] < _MAGNITUDES):
            raise ValueError(
                f"Expected rand_augment as [operations, magnitude], at least 1 and 0 to {_MAGNITUDES - 1}, "
                f"e.g. [2, 9], got {list(rand)}."
            )

    def steps(self, size: int, antialias: bool) -> dict[str, v2.Transform]:
        """The augmentations that are on, by name, in the order in which they are applied."""
        steps: dict[str, v2.Transform] = {}
        if self.random_resized_crop is not None:
            steps["crop"] = v2.RandomResizedCrop(size, scale=self.random_resized_crop, antialias=antialias)
        if self.flip_probability:
            steps["flip"] = v2.RandomHorizontalFlip(self.flip_probability)
        if self.color_jitter:
            strength = self.color_jitter
            steps["color"] = v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)
        if self.rand_augment is not None:
            steps["rand"] = v2.RandAugment(*self.rand_augment, num_magnitude_bins=_MAGNITUDES)
        return steps


def augment(clips: Tensor, seeds: Sequence[int], steps: Steps) -> Tensor:
    """Apply the steps to every clip of a batch by draws of its own.

    Args:
        clips: uint8 (B, 3, T, H, W), on any device.
        seeds: One per clip.
        steps: From `Augmentation.steps`.

    Returns:
        uint8 (B, 3, T, size, size); the clips themselves where there are no steps.
    """
    if not steps or not len(clips):
        return clips
    return torch.stack([_augmented(clip, seed, steps) for clip, seed in zip(clips, seeds, strict=True)])


def _augmented(clip: Tensor, seed: int, steps: Steps) -> Tensor:
    frames = clip.transpose(0, 1)  # (T, 3, H, W): torchvision takes the leading dimensions as one image's frames
    # torchvision draws from torch's generator on the CPU, which is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        for name, step in steps.items():
            # Draws of its own for every step, so that switching one on leaves the others' alone.
            torch.default_generator.manual_seed(random.Random(f"{seed}/{name}").getrandbits(63))
            frames = step(frames)
    return frames.transpose(0, 1)
