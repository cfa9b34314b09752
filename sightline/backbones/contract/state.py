"""The state that travels through a backbone: its tokens, the grid that they lie on, and which of them are left.

Shapes: B clips, N tokens, D width, K patches that are left, C cells of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.kept_cells import KeptCells
from sightline.backbones.contract.layout import NO_TOKEN


@dataclass(frozen=True)
class TokenState:
    """Tokens on their way from the embedding to the classifier.

    Attributes:
        tokens: (B, N, D). The first ``class_tokens`` of the N are class tokens, the others patches.
        grid: (T, H, W) that the patches lie on, row-major, also after some were dropped.
        class_tokens: How many leading tokens are class tokens.
        kept: Which patches are left; None while all are (then they stand in the grid's order).
        pixels: The clips (B, 3, T, H, W), where a reducer needs them.
        keys: Keys of the last attention site that has run, by token, (B, N, h, d), where a reducer needs them.
    """

    tokens: Tensor
    grid: tuple[int, int, int]
    class_tokens: int = 0
    kept: KeptCells | None = None
    pixels: Tensor | None = None
    keys: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.tokens.shape[0]

    @property
    def is_dense(self) -> bool:
        """Whether every cell of the grid has its token."""
        return self.kept is None

    @property
    def patches(self) -> int:
        """How many patches a clip has here, counting those that do not exist in some clips."""
        return self.tokens.shape[1] - self.class_tokens

    @property
    def key_mask(self) -> Tensor | None:
        """True where a token exists, bool (B, N); None where all do."""
        if self.kept is None or self.kept.exists is None:
            return None
        return F.pad(self.kept.exists, (self.class_tokens, 0), value=True)

    def cell_numbers(self) -> Tensor:
        """Cell of every patch, int64 (B, K); `NO_TOKEN` where a clip has fewer patches than others."""
        if self.kept is not None:
            return self.kept.cells
        return torch.arange(self.patches, device=self.tokens.device).expand(self.batch, -1)

    def require_pixels(self, who: str) -> Tensor:
        """Return the clips; raise ValueError where ``who`` did not ask for them, or they were not handed on."""
        if self.pixels is None:
            raise ValueError(
                f"{who} needs the clips' pixels, but the state does not carry them. Name pixels among the needs of the "
                "place, and pass the same reducer to embed and run."
            )
        return self.pixels

    def with_tokens(self, tokens: Tensor) -> TokenState:
        """Return the same state with other values of the same tokens.

        Raises:
            ValueError: If they are not as many; `select` drops tokens.
        """
        if tokens.shape[:2] != self.tokens.shape[:2]:
            raise ValueError(
                f"Expected {tuple(self.tokens.shape[:2])} clips and tokens, got {tuple(tokens.shape[:2])}. To go on "
                "with fewer tokens, use select."
            )
        return replace(self, tokens=tokens)

    def only_class_tokens(self) -> TokenState:
        """Return the class tokens without the patches."""
        none = KeptCells(torch.empty(self.batch, 0, dtype=torch.int64, device=self.tokens.device), None, self.grid)
        return TokenState(self.tokens[:, : self.class_tokens], self.grid, self.class_tokens, none)

    def select(self, cells: Tensor, exists: Tensor | None = None) -> TokenState:
        """Go on with some of the patches; class tokens stay.

        Args:
            cells: Cells of the patches to keep, int64 (B, K), in the order in which they are to stand.
            exists: Which of them exist, bool (B, K), where clips keep unequal numbers; all where None.

        Returns:
            The reduced state; the state itself where nothing is dropped (a dense one keeps the grid's order then).

        Raises:
            ValueError: If a cell has no patch here or is named twice, or a clip keeps none.
        """
        there = self.cell_numbers()
        now = self.kept or KeptCells(there, None, self.grid)
        if not torch.compiler.is_compiling():
            _check_selection(now, cells, exists)
            if exists is not None:
                # Where no clip has a token nothing need stand; one clip alone never carries a mask.
                used = exists.any(dim=0)
                cells, exists = cells[:, used], exists[:, used]
                exists = None if bool(exists.all()) else exists
        if exists is None and cells.shape[1] == there.shape[1] and (self.kept is None or _same(cells, there)):
            return self
        # What does not exist takes any token; nobody reads it.
        position = now.position.gather(1, cells if exists is None else cells.masked_fill(~exists, 0)).clamp(min=0)
        classes = torch.arange(self.class_tokens, device=cells.device).expand(self.batch, -1)
        rows = torch.cat((classes, position + self.class_tokens), dim=1)
        return replace(
            self,
            tokens=take_rows(self.tokens, rows),
            kept=KeptCells(cells, exists, self.grid),
            keys=None if self.keys is None else take_rows(self.keys, rows),
        )

    def densified(self) -> TokenState:
        """Give every cell a token again: that of the nearest cell that has one (see `KeptCells.nearest`)."""
        if self.kept is None:
            return self
        rows = self.filling()
        return replace(
            self,
            tokens=take_rows(self.tokens, rows),
            kept=None,
            keys=None if self.keys is None else take_rows(self.keys, rows),
        )

    def mean(self) -> Tensor:
        """Return the mean over the tokens that exist, class tokens among them, (B, D)."""
        there = self.key_mask
        if there is None:
            return self.tokens.mean(dim=1)
        # In single precision at least, as the plain mean adds up: sums of half precision overflow.
        exact = torch.promote_types(self.tokens.dtype, torch.float32)
        total = self.tokens.masked_fill(~there.unsqueeze(2), 0).sum(dim=1, dtype=exact)
        return (total / there.sum(dim=1, keepdim=True)).to(self.tokens.dtype)

    def filling(self) -> Tensor:
        """Position among the tokens of what stands for each class token and cell of the grid, int64 (B, classes + C).

        Raises:
            ValueError: If no patch is left at all.
        """
        if not self.patches:
            raise ValueError("A state without patches cannot be filled; it holds class tokens alone.")
        classes = torch.arange(self.class_tokens, device=self.tokens.device).expand(self.batch, -1)
        if self.kept is None:
            return torch.cat((classes, self.cell_numbers() + self.class_tokens), dim=1)
        return torch.cat((classes, self.kept.nearest + self.class_tokens), dim=1)

    @staticmethod
    def stack(states: Sequence[TokenState]) -> TokenState:
        """Join states along the batch, in order, so that many variants run as one.

        Where they have unequal numbers of patches, the shorter ones are padded with tokens that do not exist.

        Raises:
            ValueError: If the states differ in grid, in number of class tokens, in width, or in what they carry.
        """
        first = states[0]
        if len(states) == 1:
            return first
        if any(s.grid != first.grid or s.class_tokens != first.class_tokens for s in states):
            raise ValueError(
                "Only states of the same grid and the same number of class tokens can be stacked, got "
                f"{', '.join(f'{s.grid} with {s.class_tokens} class tokens' for s in states)}."
            )
        if any(s.tokens.shape[2] != first.tokens.shape[2] for s in states):
            widths = ", ".join(str(s.tokens.shape[2]) for s in states)
            raise ValueError(f"Only states of the same width can be stacked, got widths {widths}.")
        most = max(s.patches for s in states)
        return replace(
            first,
            tokens=torch.cat([_padded(s.tokens, most + s.class_tokens) for s in states]),
            kept=_stacked_cells(states, most),
            pixels=_joined("pixels", [s.pixels for s in states]),
            keys=_joined("keys", [None if s.keys is None else _padded(s.keys, most + s.class_tokens) for s in states]),
        )


def _same(cells: Tensor, there: Tensor) -> bool:
    return not torch.compiler.is_compiling() and torch.equal(cells, there)


def _stacked_cells(states: Sequence[TokenState], most: int) -> KeptCells | None:
    first = states[0].kept
    if all(s.kept is first for s in states):
        return None if first is None else first.repeated(len(states))
    cells, exists = [], []
    for state in states:
        own = state.cell_numbers()
        cells.append(F.pad(own, (0, most - own.shape[1]), value=NO_TOKEN))
        exists.append(cells[-1] != NO_TOKEN)
    together, there = torch.cat(cells), torch.cat(exists)
    equal = all(s.patches == most and (s.kept is None or s.kept.exists is None) for s in states)
    return KeptCells(together, None if equal else there, states[0].grid)


def _joined(name: str, parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    if there and len(there) < len(parts):
        raise ValueError(f"Cannot stack states of which only some carry {name}.")
    if len({part.shape[1:] for part in there}) > 1:
        raise ValueError(f"Cannot stack states whose {name} have other shapes: {[tuple(p.shape) for p in there]}.")
    return torch.cat(there) if there else None


def _padded(values: Tensor, length: int) -> Tensor:
    """Append zeros to (B, N, ...) up to (B, length, ...)."""
    missing = length - values.shape[1]
    return torch.cat((values, values.new_zeros(len(values), missing, *values.shape[2:])), dim=1) if missing else values


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Take rows (B, M) of values (B, N, ...): (B, M, ...)."""
    index = rows.view(*rows.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def _check_selection(now: KeptCells, cells: Tensor, exists: Tensor | None) -> None:
    b, total = len(now.cells), now.count
    if cells.dtype != torch.int64 or cells.dim() != 2 or len(cells) != b or not cells.shape[1]:
        raise ValueError(
            f"Expected cells to keep as int64 ({b}, K) with K at least 1, got {cells.dtype} {tuple(cells.shape)}."
        )
    if exists is not None and (exists.dtype != torch.bool or exists.shape != cells.shape):
        raise ValueError(
            f"Expected which cells exist as bool {tuple(cells.shape)}, got {exists.dtype} {tuple(exists.shape)}."
        )
    wanted = torch.ones_like(cells, dtype=torch.bool) if exists is None else exists
    if not bool(wanted.any(dim=1).all()):
        raise ValueError("Every clip must keep at least one patch; a reducer left none in some clip.")
    inside = (cells >= 0) & (cells < total)
    if not bool((inside | ~wanted).all()):
        raise ValueError(f"Cells to keep must lie in the grid {now.grid}, 0 to {total - 1}.")
    number = cells.masked_fill(~wanted, 0)
    if not bool(((now.position.gather(1, number) >= 0) | ~wanted).all()):
        raise ValueError("A cell to keep has no patch any more: it was dropped at an earlier place.")
    times = torch.zeros(b, total, dtype=torch.int64, device=cells.device).scatter_add(1, number, wanted.long())
    if bool((times > 1).any()):
        raise ValueError("A cell to keep is named twice for one clip.")
