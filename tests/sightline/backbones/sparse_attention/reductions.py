"""Random states with dropped and merged tokens, and the two ways in which a site attends to them."""

from __future__ import annotations

import torch

from sightline.backbones import TokenState
from sightline.backbones.contract.kept_cells import Attending

FILLED, SPARSE = Attending(sparse=False), Attending(sparse=True)
KINDS = ("random", "cluster", "ragged", "merged", "one frame", "few")


def dense(grid: tuple[int, int, int], batch: int, width: int, class_tokens: int = 0, seed: int = 0) -> TokenState:
    generator = torch.Generator().manual_seed(seed)
    count = grid[0] * grid[1] * grid[2] + class_tokens
    return TokenState(torch.randn(batch, count, width, generator=generator), grid, class_tokens)


def reduced(state: TokenState, kind: str, how: Attending, seed: int = 0) -> TokenState:
    """Drop tokens of a dense state in one of several ways; other cells, in no order, for every clip."""
    generator, (t, h, w) = torch.Generator().manual_seed(seed), state.grid
    b, count = state.batch, t * h * w
    scores = torch.rand(b, count, generator=generator)
    if kind == "cluster":  # one thing that moves: all that is left lies together, and most windows are empty
        cells = torch.arange(count)
        away = (cells // w % h - h / 2).abs() + (cells % w - cells // (h * w)).abs()
        scores = scores - away
    if kind == "one frame":
        scores[:, h * w :] -= 2
    share = {"few": 0.05, "one frame": min(0.5, 0.7 / t)}.get(kind, 0.4)
    cells = scores.argsort(dim=1, descending=True)[:, : max(1, int(share * count))]
    k = cells.shape[1]
    if kind == "ragged":
        exists = torch.rand(b, k, generator=generator) < torch.linspace(0.2, 0.9, b).unsqueeze(1)
        exists[:, 0] = True
        return state.select(cells, exists, how)
    if kind == "merged":
        into = torch.randint(-1, k, (b, count), generator=generator)
        return state.merge(cells, into.scatter(1, cells, torch.arange(k).expand(b, k)), how=how)
    return state.select(cells, None, how)
