"""Does a map look where something is? The pointing game, the share of the map inside boxes, and the same in time.

**Pointing game** (Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 126, 2018, section 5.1): a hit
where the map's peak lies in a box of the target, or no more than a tolerance away from it. Deviations:

- A map is of a clip: its one peak is over all frames, and is held against the boxes of the frame it lies in.
- Where several places are equally high, the score is the share of them that are hits: what a peak drawn from them at
  random would get on average. Upsampling a coarse map by repeating cells makes such ties everywhere, and the first of
  them in memory is at its upper left.
- The tolerance is 0 pixels unless asked for (theirs: 15 pixels of photographs; a model's input is smaller).
- Boxes of several things of one name count as one target, and clips without the target do not count.

**Share**: how much of the map's sum lies inside the boxes. **Temporal pointing**: whether the frame that receives most
in sum lies in the action, and the share of the sum in the action's frames; ties as above. A clip of which all frames,
or none, belong to the action says nothing and does not count.

The control is a uniform map, on which every place ties: it gets the share of the places that are hits.

Shapes: B clips, K targets, T frames, H height, W width, L places (pixels of a clip, or its frames), R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.types import Box, ClipTruth

ACTION = "action"
"""The name of what is pointed at in time."""
# Places that differ by less, relatively, tie: sums of float32 attention that are equal by right differ by as much.
_TIE = 1e-6


@dataclass(frozen=True)
class Targets:
    """What there is to point at in a batch.

    Attributes:
        names: The K names.
        near: Pixels whose centre is within the tolerance of a box of the name, bool (B, K, T, H, W).
        inside: Pixels whose centre is in such a box, likewise.
        acting: Frames in which the action is under way, bool (B, T); all false where that is not known.
    """

    names: tuple[str, ...]
    near: Tensor
    inside: Tensor
    acting: Tensor

    @property
    def shown(self) -> Tensor:
        """Which target is to be seen in which clip, bool (B, K)."""
        return self.inside.flatten(2).any(2)

    @property
    def timed(self) -> Tensor:
        """In which clip the action has a beginning or an end, bool (B,)."""
        return self.acting.any(1) & ~self.acting.all(1)

    def to(self, device: torch.device) -> Targets:
        """Return the same on a device."""
        return Targets(self.names, self.near.to(device), self.inside.to(device), self.acting.to(device))


def clip_targets(truths: Sequence[ClipTruth], frames: int, height: int, width: int, tolerance: float = 0.0) -> Targets:
    """Paint the boxes of a batch.

    Args:
        truths: Of every clip, in pixels and frames of the maps.
        frames: Frames of the maps.
        height: Their height.
        width: Their width.
        tolerance: How many pixels a peak may be away from a box.

    Raises:
        ValueError: If the tolerance is negative.
    """
    if not tolerance >= 0:
        raise ValueError(f"Expected a tolerance of 0 pixels or more, got {tolerance}.")
    names = tuple(sorted({box.name for truth in truths for box in truth.boxes}))
    inside = torch.zeros(len(truths), len(names), frames, height, width, dtype=torch.bool)
    near = inside.clone() if tolerance else inside
    acting = torch.zeros(len(truths), frames, dtype=torch.bool)
    for clip, truth in enumerate(truths):
        for box in truth.boxes:
            place = (clip, names.index(box.name), box.frame)
            inside[place] |= _within(box, height, width, 0.0)
            if tolerance:
                near[place] |= _within(box, height, width, tolerance)
        if truth.acting:
            acting[clip] = torch.tensor(truth.acting)
    return Targets(names, near, inside, acting)


def _within(box: Box, height: int, width: int, tolerance: float) -> Tensor:
    """Mark the pixels whose centre is no more than a distance away from a box, (H, W)."""
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = torch.clamp(torch.maximum(box.x0 - x, x - box.x1), min=0)
    down = torch.clamp(torch.maximum(box.y0 - y, y - box.y1), min=0)
    return torch.hypot(down[:, None], across[None]) <= tolerance


def pointing_scores(maps: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Return the pointing score and the share of maps (B, T, H, W), of the K targets and, last, of the action in time.

    Scores of what a clip does not show (`Targets.shown`, `Targets.timed`) mean nothing. Those of a uniform map are the
    control.

    Returns:
        float64 (B, K + 1) both.
    """
    by_pixel, by_frame, acting = maps.flatten(1), maps.sum((2, 3)), targets.acting[:, None]
    pointing = (peak_inside(by_pixel, targets.near.flatten(2)), peak_inside(by_frame, acting))
    share = (mass_inside(by_pixel, targets.inside.flatten(2)), mass_inside(by_frame, acting))
    return torch.cat(pointing, dim=1), torch.cat(share, dim=1)


def check_maps(maps: Tensor, shape: Sequence[int], of: str) -> None:
    """Raise ValueError unless maps can be scored: of the shape (B, T, H, W), finite, not negative and nowhere all zero.

    Args:
        maps: The maps of one head.
        shape: The shape that they must have.
        of: Which head, for the message.
    """
    if tuple(maps.shape) != tuple(shape):
        raise ValueError(f"Expected maps (B, T, H, W) of {tuple(shape)} for {of}, got {tuple(maps.shape)}.")
    total = maps.flatten(1).sum(1)
    if not (bool(torch.isfinite(total).all()) and bool((total > 0).all()) and bool((maps >= 0).all())):
        raise ValueError(
            f"Expected the maps of {of} to be finite, not negative, and nowhere all zero. Attention is; if these maps "
            "are not, the model overflowed: run it in float32."
        )


def peak_inside(maps: Tensor, marked: Tensor) -> Tensor:
    """Return which share of each map's highest places is marked: 0 or 1 unless places tie.

    Args:
        maps: (B, L); values may be below 0, all of them too.
        marked: bool (B, K, L).

    Returns:
        (B, K).
    """
    highest = maps.amax(1, keepdim=True)
    peaks = (maps >= highest - _TIE * highest.abs()).float()
    return _weighed(peaks, marked)


def mass_inside(maps: Tensor, marked: Tensor) -> Tensor:
    """Return which share of each map's sum lies in marked places, (B, K); arguments as of `peak_inside`."""
    return _weighed(maps, marked)


def _weighed(weights: Tensor, marked: Tensor) -> Tensor:
    # Clip by clip: as numbers, the marks of a whole batch are several times the size of the maps.
    inside = [(own[None] * of_clip).sum(-1, dtype=torch.float64) for own, of_clip in zip(weights, marked, strict=True)]
    return torch.stack(inside) / weights.sum(-1, dtype=torch.float64)[:, None]
