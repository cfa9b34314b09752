"""The state that travels through a backbone: its tokens, the grid that they lie on, and which of them are left.

Shapes: B clips, N tokens, D width, K patches that are left, C cells of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones.contract.kept_cells import Attending, KeptCells
from sightline.backbones.contract.layout import NO_TOKEN
from sightline.backbones.contract.merging import counted_without_empty, merged_mean, without_empty
from sightline.backbones.contract.selection_checks import check_merging, check_selection


@dataclass(frozen=True)
class TokenState:
    """Tokens on their way from the embedding to the classifier.

    Attributes:
        tokens: (B, N, D). The first ``class_tokens`` of the N are class tokens, the others patches.
        grid: (T, H, W) that the patches lie on, row-major, also after some were dropped.
        class_tokens: How many leading tokens are class tokens.
        kept: Which patches are left; None while all are (then they stand in the grid's order).
        pixels: The clips (B, 3, T, H, W), where a reducer needs them.
        features: What a reducer needs to see of every token, by name: ``keys``, ``queries`` and ``values`` of the last
            attention site that has run, (B, N, h, d), and ``attention``, what each token receives in the layer that
            follows, (B, N).
        embedding_grid: The grid right after the embedding, of which ``grid`` may be a coarser one; None for the same.
    """

    tokens: Tensor
    grid: tuple[int, int, int]
    class_tokens: int = 0
    kept: KeptCells | None = None
    pixels: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    embedding_grid: tuple[int, int, int] | None = None

    @property
    def keys(self) -> Tensor | None:
        """Keys of the last attention site that has run, by token, (B, N, h, d), where a reducer needs them."""
        return self.features.get("keys")

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

    def select(self, cells: Tensor, exists: Tensor | None = None, how: Attending | None = None) -> TokenState:
        """Go on with some of the patches; class tokens stay.

        Args:
            cells: Cells of the patches to keep, int64 (B, K), in the order in which they are to stand.
            exists: Which of them exist, bool (B, K), where clips keep unequal numbers; all where None.
            how: How layers attend from here; `ATTEND` if None.

        Returns:
            The reduced state; the state itself where nothing is dropped (a dense one keeps the grid's order then).

        Raises:
            ValueError: If a cell has no patch here or is named twice, or a clip keeps none.
        """
        there = self.cell_numbers()
        now = self.kept or KeptCells(there, None, self.grid)
        if _has_values(cells):
            check_selection(now, cells, exists)
            cells, exists = without_empty(cells, exists)
        if exists is None and cells.shape[1] == there.shape[1] and (self.kept is None or _same(cells, there)):
            return self
        # What does not exist takes any token; nobody reads it.
        position = now.position.gather(1, cells if exists is None else cells.masked_fill(~exists, 0)).clamp(min=0)
        owner = now.owner_once_selected(position, exists)
        return self._at(position + self.class_tokens, KeptCells(cells, exists, self.grid, owner, how))

    def merge(
        self, cells: Tensor, into: Tensor, exists: Tensor | None = None, how: Attending | None = None
    ) -> TokenState:
        """Go on with some of the patches, into which the others are merged; class tokens stay.

        Tokens and features become means over what was merged, each counting the patches that it is made of.

        Args:
            cells: Cells of the patches to keep, int64 (B, K), in the order in which they are to stand.
            into: For every patch that is here, in order, the position among the K of the one that it is merged into
                (its own for those that are kept), int64 (B, N); `NO_TOKEN` where it is dropped. What is said of patches
                that do not exist is not read.
            exists: Which of the kept exist, bool (B, K), as in `select`.
            how: How layers attend from here; `ATTEND` if None.

        Returns:
            The reduced state; the state itself where nothing is merged or dropped, as in `select`.

        Raises:
            ValueError: As in `select`, or if a patch is merged into one that is not kept.
        """
        there = self.cell_numbers()
        now = self.kept or KeptCells(there, None, self.grid)
        into = into if now.exists is None else into.masked_fill(~now.exists, NO_TOKEN)
        if _has_values(cells):
            check_selection(now, cells, exists)
            check_merging(now, cells, exists, into)
            into = counted_without_empty(into, exists)
            cells, exists = without_empty(cells, exists)
        if exists is None and cells.shape[1] == there.shape[1] and (self.kept is None or _same(cells, there)):
            return self
        sizes = torch.ones_like(there) if now.sizes is None else now.sizes

        def mean(values: Tensor) -> Tensor:
            classes, patches = values[:, : self.class_tokens], values[:, self.class_tokens :]
            return torch.cat((classes, merged_mean(patches, into, sizes, cells.shape[1])), dim=1)

        return replace(
            self,
            tokens=mean(self.tokens),
            kept=KeptCells(cells, exists, self.grid, now.owner_once_merged(into), how),
            features={name: mean(values) for name, values in self.features.items()},
        )

    def _at(self, patches: Tensor, kept: KeptCells | None) -> TokenState:
        """Return the state with the class tokens and the tokens at these positions, int64 (B, K)."""
        classes = torch.arange(self.class_tokens, device=patches.device).expand(self.batch, -1)
        rows = torch.cat((classes, patches), dim=1)
        features = {name: take_rows(values, rows) for name, values in self.features.items()}
        return replace(self, tokens=take_rows(self.tokens, rows), kept=kept, features=features)

    def densified(self) -> TokenState:
        """Give every cell a token again: that of the nearest cell that has one (see `KeptCells.nearest`)."""
        if self.kept is None:
            return self
        return self._at(self.filling()[:, self.class_tokens :], None)

    def mean(self) -> Tensor:
        """Return the mean over the tokens that exist, class tokens among them, (B, D).

        Tokens that others were merged into count as many times as they have patches.
        """
        there, sizes = self.key_mask, None if self.kept is None else self.kept.sizes
        if there is None and sizes is None:
            return self.tokens.mean(dim=1)
        # In single precision at least, as the plain mean adds up: sums of half precision overflow.
        exact = torch.promote_types(self.tokens.dtype, torch.float32)
        tokens = self.tokens if there is None else self.tokens.masked_fill(~there.unsqueeze(2), 0)
        if sizes is None:
            assert there is not None
            return (tokens.sum(dim=1, dtype=exact) / there.sum(dim=1, keepdim=True)).to(tokens.dtype)
        counts = F.pad(sizes, (self.class_tokens, 0), value=1).to(exact)
        shares = counts / counts.sum(dim=1, keepdim=True)
        return (tokens.to(exact) * shares.unsqueeze(2)).sum(dim=1).to(tokens.dtype)

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
            features=_joined_features(states, most),
        )


def _has_values(cells: Tensor) -> bool:
    """Whether what is in a tensor can be looked at: not where a program is traced or only shapes are computed."""
    return not torch.compiler.is_compiling() and not cells.is_meta


def _same(cells: Tensor, there: Tensor) -> bool:
    return _has_values(cells) and torch.equal(cells, there)


def _joined_features(states: Sequence[TokenState], most: int) -> dict[str, Tensor]:
    names = sorted({name for state in states for name in state.features})
    found = {}
    for name in names:
        parts = [state.features.get(name) for state in states]
        length = most + states[0].class_tokens
        joined = _joined(name, [None if part is None else _padded(part, length) for part in parts])
        assert joined is not None
        found[name] = joined
    return found


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
    return KeptCells(together, None if equal else there, states[0].grid, _stacked_owners(states), _one_way(states))


def _one_way(states: Sequence[TokenState]) -> Attending:
    """Return how all of the states are attended with; what is said of merged tokens counts where there are any."""
    reduced = [s.kept for s in states if s.kept is not None]
    ways = {kept.how for kept in reduced if kept.owner is not None} or {kept.how for kept in reduced}
    if len(ways) > 1 or len({kept.how.sparse for kept in reduced}) > 1:
        said = ", ".join(sorted({str(kept.how) for kept in reduced}))
        raise ValueError(f"Cannot stack states that are attended with in different ways: {said}.")
    return ways.pop()


def _stacked_owners(states: Sequence[TokenState]) -> Tensor | None:
    if all(s.kept is None or s.kept.owner is None for s in states):
        return None
    own = [s.kept or KeptCells(s.cell_numbers(), None, s.grid) for s in states]
    return torch.cat([kept.position if kept.owner is None else kept.owner for kept in own])


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
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        index = rows.view(*rows.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
        return values.gather(1, index)
    # Indexing copies whole rows, four times as fast on a CPU as gathering numbers; only backwards it is no faster.
    return values[torch.arange(rows.shape[0], device=rows.device).unsqueeze(1), rows]
