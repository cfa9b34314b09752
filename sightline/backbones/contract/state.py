"""The state that travels through a backbone: its tokens and what is needed to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenState:
    """Tokens on their way from the embedding to the classifier.

    Attributes:
        tokens: (B, N, D). The first ``class_tokens`` of the N are class tokens, the others patches.
        grid: (T, H, W) of the patches in row-major order while all are there; None once some were dropped.
        class_tokens: How many leading tokens are class tokens.
        positions: Cell of each kept patch in the original grid, int64 (B, N - class_tokens); None while dense.
        key_mask: True where a token exists, bool (B, N); None where all do.
    """

    tokens: Tensor
    grid: tuple[int, int, int] | None
    class_tokens: int = 0
    positions: Tensor | None = None
    key_mask: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.tokens.shape[0]

    def with_tokens(self, tokens: Tensor) -> TokenState:
        """Return the same state with other tokens of the same number and meaning."""
        return replace(self, tokens=tokens)

    def only_class_tokens(self) -> TokenState:
        """Return the class tokens without the patches."""
        return TokenState(self.tokens[:, : self.class_tokens], grid=None, class_tokens=self.class_tokens)

    def require_grid(self, who: str) -> tuple[int, int, int]:
        """Return the grid, or raise ValueError where tokens were dropped and ``who`` needs a dense grid."""
        if self.grid is None:
            raise ValueError(
                f"{who} needs the dense grid of patches, but tokens were dropped before it. "
                "Token pruning works with TimeSformer (joint attention) and ViT only."
            )
        return self.grid

    @staticmethod
    def stack(states: Sequence[TokenState]) -> TokenState:
        """Join states along the batch, in order, so that many variants run as one.

        Raises:
            ValueError: If the states differ in grid or in number of class tokens.
        """
        first = states[0]
        if any(s.grid != first.grid or s.class_tokens != first.class_tokens for s in states):
            raise ValueError("Only states of the same grid and the same number of class tokens can be stacked.")

        def joined(name: str) -> Tensor | None:
            parts = [getattr(s, name) for s in states]
            if any(p is None for p in parts):
                if any(p is not None for p in parts):
                    raise ValueError(f"Cannot stack states of which only some have {name}.")
                return None
            return torch.cat(parts)

        return replace(
            first,
            tokens=torch.cat([s.tokens for s in states]),
            positions=joined("positions"),
            key_mask=joined("key_mask"),
        )
