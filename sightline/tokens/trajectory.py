"""How much of a clip's last frame was to be seen before: the trajectory sum of its tokens.

Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", 2023 (equation 6): the mean
over the tokens i of the last frame of the sum over the earlier frames of max_j cos(x_i, x_j), j the frame's tokens. It
lies between minus and plus the number of earlier frames; the lower, the fewer tokens say what others said before.

Which tokens: those that leave a layer, the last one unless asked otherwise, and of these the ones that are left after
what a reducer drops behind that layer.

What the paper leaves open, since it drops equally many tokens of every frame: an earlier frame of which no token is
left adds 0, for nothing in it says anything again; and where the last frame has none, the last frame that has one
stands for it, with the frames before that one.

It depends on how many tokens are left, since a maximum over fewer is lower: compare at equal numbers, see
`RandomAsMany`.

Shapes: B clips, K patches that are left, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone, Reducer


def trajectory_sum(tokens: Tensor, cells: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return the trajectory sum of every clip, float32 (B,).

    Args:
        tokens: The patches that are left, (B, K, D).
        cells: The cell of each in a grid, int64 (B, K), in any order; negative where there is no token.
        grid: The grid (T, H, W), row-major.

    Raises:
        ValueError: If cells and tokens do not belong together, or a clip has no token.
    """
    if cells.shape != tokens.shape[:2]:
        raise ValueError(f"Expected a cell for each of {tuple(tokens.shape[:2])} tokens, got {tuple(cells.shape)}.")
    if not bool((cells >= 0).any(dim=1).all()):
        raise ValueError("A trajectory sum needs at least one token in every clip; some clip has none left.")
    frames = torch.where(cells < 0, -1, cells // (grid[1] * grid[2]))
    directions = F.normalize(tokens.float(), dim=2)
    # Clip by clip, because each has its own number of tokens in each frame.
    return torch.stack([_of_clip(*clip) for clip in zip(directions, frames, strict=True)])


def _of_clip(directions: Tensor, frames: Tensor) -> Tensor:
    """Return the sum of one clip from its tokens' directions (K, D) and frames (K,), -1 where there is no token."""
    last = int(frames.max())
    similarity = directions[frames == last] @ directions.T  # (tokens of the last frame, K)
    best = [similarity[:, frames == earlier].amax(dim=1) for earlier in frames.unique().tolist() if 0 <= earlier < last]
    return torch.stack(best).sum(dim=0).mean() if best else similarity.new_zeros(())


@torch.no_grad()
def trajectory_sums(
    backbone: Backbone, clips: Tensor, reducer: Reducer | None = None, layer: int | None = None
) -> Tensor:
    """Return the trajectory sum of clips (B, 3, T, H, W) behind a layer, float32 (B,).

    Args:
        backbone: In evaluation mode.
        clips: What to measure it on.
        reducer: The token reduction to run with; all tokens where None.
        layer: Behind which layer (original index); the last one that exists where None.

    Raises:
        ValueError: If there is no such layer, or the reducer cannot work with this backbone.
    """
    existing = [info.index for info in backbone.layers]
    if not existing or (layer is not None and layer not in existing):
        raise ValueError(
            f"{backbone.family} has no layer {'left' if layer is None else layer} to measure the trajectory sum "
            f"behind; its layers are {', '.join(map(str, existing)) or 'all removed'}."
        )
    stop = (existing[-1] if layer is None else layer) + 1
    state = backbone.run(backbone.embed(clips, reducer), 0, stop, reducer=reducer)
    return trajectory_sum(state.tokens[:, state.class_tokens :], state.cell_numbers(), state.grid)
