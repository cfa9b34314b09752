"""What every registered token reduction can do besides choosing tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sightline.backbones import Backbone, Place, Reducer, TokenState


@dataclass(frozen=True)
class TokenReducer(Reducer):
    """A reducer that says which others of its kind drop less or more.

    Attributes:
        needs_interpreters: Whether it works only in a model that holds trained interpreters.
    """

    needs_interpreters: ClassVar[bool] = False

    @abstractmethod
    def amounts(self, backbone: Backbone) -> Sequence[TokenReducer]:
        """Return this reducer with every amount that it can drop on a backbone, from the least to the most.

        Raises:
            ValueError: If it cannot work with this backbone.
        """

    def heat(self, place: Place, state: TokenState) -> Tensor | None:
        """Return what to draw of every patch that is here, in [0, 1], (B, N); None where it scores nothing so."""
        return None

    @classmethod
    def of_older(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return options that an earlier version may have stored as those that mean the same today."""
        return options

    @property
    def why_no_program(self) -> str:
        """Why no program of fixed shapes that runs without Sightline can hold it; empty where one can."""
        return "" if self.equal_counts else "how many tokens stay depends on the clip, and a program's shapes are fixed"
