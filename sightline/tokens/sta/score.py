"""Semantic-aware temporal accumulation: which tokens of each frame go on.

Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", ICCV 2023 (sections 3.2 and
3.3). A frame is what chooses by itself here: one of the grid, or several that are read as one.

Shapes: B clips, N tokens of a clip, n of a frame, m of the frame before it, k that stay, D width of what is compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.state import take_rows

BOTH, ACCUMULATION, SEMANTICS = "both", "accumulation", "semantics"
WHOLE, KEPT = "whole", "kept"


@dataclass(frozen=True)
class Seen:
    """What is known of the tokens of all clips, in float32.

    Attributes:
        similar: What tokens are compared by, of length 1, (B, N, D).
        strength: Sum of every token's absolute values, (B, N).
        cells: Their cells, int64 (B, N).
    """

    similar: Tensor
    strength: Tensor
    cells: Tensor

    def part(self, start: int, stop: int) -> Seen:
        """Return some tokens that stand side by side: a frame."""
        return Seen(self.similar[:, start:stop], self.strength[:, start:stop], self.cells[:, start:stop])


def unit_vectors(features: Tensor) -> Tensor:
    """Return tokens (B, N, D), or by head (B, N, h, d) of which the mean counts, scaled to length 1 in float32.

    Half precision would tie scores. No gradient is needed: what is chosen has none.
    """
    exact = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(exact.mean(dim=2) if exact.dim() == 4 else exact, dim=-1)


def choose(
    seen: Seen,
    before: Sequence[int],
    kept: Sequence[int],
    first: Callable[[Seen, int], Tensor],
    *,
    backward: bool = False,
    score: str = BOTH,
    previous: str = WHOLE,
) -> Tensor:
    """Return the positions of the tokens that go on, frame by frame, int64 (B, sum of ``kept``).

    Within a frame they stand in the order of ascending score, as in the authors' code.

    Args:
        seen: Of tokens that stand frame by frame.
        before: Tokens of each frame.
        kept: How many of them stay.
        first: Returns positions (B, k), in a frame, of those that stay of the frame that the pass begins with.
        backward: Whether the pass begins with the last frame.
        score: What decides: ``both``, ``accumulation`` or ``semantics`` alone.
        previous: Which tokens of the first frame the second is compared with: the ``whole`` frame (authors' code) or
            those ``kept`` (paper). Later frames are compared with what was kept of the frame before.
    """
    starts = [sum(before[:frame]) for frame in range(len(before))]
    frames = range(len(before))
    chosen: dict[int, Tensor] = {}
    earlier, weight = seen.similar, seen.strength  # set by the first frame
    for turn, frame in enumerate(reversed(frames) if backward else frames):
        now = seen.part(starts[frame], starts[frame] + before[frame])
        if not turn:
            stay = first(now, kept[frame])
            earlier = now.similar if previous == WHOLE else take_rows(now.similar, stay)
            weight = torch.ones_like(earlier[:, :, 0])
        else:
            gathered = None if score == SEMANTICS else accumulated(now.similar, earlier, weight)
            value = 1 - semantic_strength(now.strength) if score != ACCUMULATION else torch.ones_like(now.strength)
            value = value if gathered is None else value * gathered
            stay = rising(value)[:, : kept[frame]]
            earlier = take_rows(now.similar, stay)
            if gathered is not None:
                weight = gathered.gather(1, stay)
                weight = weight / weight.sum(dim=1, keepdim=True)
        chosen[frame] = stay + starts[frame]
    return torch.cat([chosen[frame] for frame in frames], dim=1)


def accumulated(now: Tensor, earlier: Tensor, weight: Tensor) -> Tensor:
    """Return what every token gathers of the frame before: s_t = M s_(t-1), (B, n).

    M is the softmax of the cosines over the tokens of the present frame (each column adds up to 1), temperature 1.

    Args:
        now: Unit vectors of the frame, (B, n, D).
        earlier: Those of the frame before, (B, m, D).
        weight: What these have gathered, s_(t-1), (B, m).
    """
    # Cosines need no maximum taken off before the exponential; the columns' sums divide m numbers instead of n * m.
    affinity = torch.matmul(now, earlier.transpose(1, 2)).exp_()
    return torch.matmul(affinity, (weight / affinity.sum(dim=1)).unsqueeze(2)).squeeze(2)


def semantic_strength(strength: Tensor) -> Tensor:
    """Return F, the sums of absolute values (B, n) brought to [0, 1] within the frame; 0 where all are equal."""
    low, high = strength.aminmax(dim=1, keepdim=True)
    return (strength - low) / (high - low).clamp(min=torch.finfo(strength.dtype).tiny)


def rising(values: Tensor) -> Tensor:
    """Return the places of (B, n) in ascending order; of equal ones, as in a still picture, the earlier comes first."""
    return values.sort(dim=1, stable=True).indices


def first_by_matching(frame: Seen, keep: int) -> Tensor:
    """Drop the even tokens that are most similar to an odd one (Bolya et al., ICLR 2023, section 3; without merging).

    More than all even ones cannot go: then a grid stays, see `first_by_grid`.
    """
    count = frame.similar.shape[1]
    even = (count + 1) // 2
    if count - keep > even or count < 2:
        return first_by_grid(frame, keep)
    device = frame.similar.device
    likeness = torch.matmul(frame.similar[:, ::2], frame.similar[:, 1::2].transpose(1, 2)).amax(dim=2)
    stay = rising(likeness)[:, : even - (count - keep)]
    odd = torch.arange(1, count, 2, device=device).expand(stay.shape[0], -1)
    return torch.cat((odd, 2 * stay), dim=1)


def first_by_grid(frame: Seen, keep: int) -> Tensor:
    """Keep tokens that are evenly spaced in the order of their cells."""
    count = frame.cells.shape[1]
    spaced = torch.tensor([(2 * i + 1) * count // (2 * keep) for i in range(keep)], device=frame.cells.device)
    return frame.cells.argsort(dim=1)[:, spaced]


def first_at_random(frame: Seen, keep: int, seed: str) -> Tensor:
    """Keep tokens drawn by a seed: the same places in every clip, so that a program of fixed shape can hold them."""
    count = frame.cells.shape[1]
    drawn = sorted(random.Random(seed).sample(range(count), keep))
    return torch.tensor(drawn, device=frame.cells.device).expand(frame.cells.shape[0], -1)
