"""Run-length tokenization: dropping the patches whose pixels have not changed.

Shapes: B clips, N patches that are here, (T, H, W) the grid, C its cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone, Needs, Place, Selection, TokenState
from sightline.tokens.keeping import keep_where
from sightline.tokens.share_reducer import ShareReducer

FIXED = ("threshold", "share")
# From "nothing may change" to more than any normalised pixel can: its range is some 4.5 standard deviations.
_THRESHOLDS = (0.0, *(0.001 * 1.02**step for step in range(430)))


@dataclass(frozen=True)
class RLT(ShareReducer):
    """Keeps the patches whose pixels changed; those of the first frames always stay.

    A patch changed as much as the last of its frames differs from the first of the frames of the patch before it at the
    same place: the mean over pixels and channels of the absolute difference, in the normalised pixels of the backbone's
    checkpoint (`ModelRecord.std`; a threshold of .1 is some 5.7 grey levels). On a coarser grid, as in the later stages
    of Video Swin and MViT, a patch is what its cell covers.

    Known to go wrong: what changes slowly stays under the threshold in every step and goes for ever, however far it
    has come; noise, as of infrared cameras, keeps everything.

    Source: Choudhury et al., "Don't Look Twice: Faster Video Transformers with Run-Length Tokenization", 2024.
    Deviations:
    - No encoding of how long a token's run is: a model that was not trained with one could not read it.
    - Clips of unequal length run padded and masked instead of packed into one sequence.
    - ``share`` is not in the paper.

    Attributes:
        fixed: ``threshold``: what changed by more stays, in each clip as many as there are. ``share``: `kept` decides
            how many of those that changed most; of those that did not change at all, evenly spread ones.
        threshold: How much must have changed, in standard deviations, 0 or more.
    """

    fixed: str = "threshold"
    threshold: float = 0.1

    needs: ClassVar[Needs] = Needs(pixels=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fixed not in FIXED:
            raise ValueError(f"RLT works with a fixed {' or '.join(FIXED)}, got {self.fixed!r}.")
        if not self.threshold >= 0:
            raise ValueError(f"The threshold of RLT must be 0 or more, got {self.threshold:g}.")

    @property
    def equal_counts(self) -> bool:
        return self.fixed == "share"

    def scores(self, place: Place, state: TokenState) -> Tensor:
        clips = state.require_pixels("RLT")
        changes = pixel_changes(clips, state.grid, self.backbone.record.std).flatten(1)
        return changes.gather(1, state.cell_numbers().clamp(min=0))

    def reduce(self, place: Place, state: TokenState) -> Selection | None:
        if self.fixed == "share":
            return super().reduce(place, state)
        return keep_where(state, (self.scores(place, state) > self.threshold) & (state.cell_numbers() >= 0))

    def amounts(self, backbone: Backbone) -> Sequence[ShareReducer]:
        if self.fixed == "share":
            return super().amounts(backbone)
        self.places(backbone)
        return [replace(self, threshold=round(threshold, 6)) for threshold in _THRESHOLDS]


def pixel_changes(clips: Tensor, grid: tuple[int, int, int], std: Sequence[float]) -> Tensor:
    """Return by how much the pixels of every cell differ from those of the cell before it, (B, T, H, W).

    Args:
        clips: (B, 3, frames, height, width), uint8 or float in [0, 1].
        grid: Cells (T, H, W) that lie over the clip from its first frame and upper left corner on; the last may reach
            beyond it.
        std: What pixels are divided by, for each channel.

    Returns:
        In standard deviations; infinite in the first frames, before which there is nothing.
    """
    frames = clips.shape[2]
    depth, *size = (-(-pixels // cells) for pixels, cells in zip(clips.shape[2:], grid, strict=True))
    first = list(range(0, depth * (grid[0] - 1), depth))
    last = [min(start + 2 * depth, frames) - 1 for start in first]
    exact = clips.dtype if clips.dtype == torch.float64 else torch.float32
    earlier, later = (clips[:, :, index].to(exact) for index in (first, last))  # (B, 3, T - 1, height, width)
    if clips.dtype == torch.uint8:
        earlier, later = earlier / 255, later / 255
    spread = torch.tensor(std, dtype=exact, device=clips.device).view(1, -1, 1, 1, 1)
    changed = ((later - earlier).abs() / spread).mean(dim=1)
    # Frames are the batch here, of which there may be none. Cells that reach beyond the clip count what is in it.
    by_cell = F.avg_pool2d(changed.flatten(0, 1).unsqueeze(1), tuple(size), ceil_mode=True)
    return F.pad(by_cell.view(clips.shape[0], -1, *grid[1:]), (0, 0, 0, 0, 1, 0), value=torch.inf)
