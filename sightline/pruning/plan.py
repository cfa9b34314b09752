"""Which layers and heads to cut, at which depths: pure decisions on scores.

One-shot pruning takes every depth from one ranking, so its sets are nested: what goes at depth 2 goes at depth 4 too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sightline.types import Unit

if TYPE_CHECKING:
    pass

SCORES = ("r", "jsd", "dprob")
BASELINES = {"random": "draw", "block_influence": "cosine", "gradient": "taylor", "last": "from_end"}
"""What rankings by other means than relevance go by: the name of each one's score."""
MODES = ("lowest", "highest")
# Underscores, no hyphens: hyphens separate the parts of a plan's id, which is also a folder's name.
METHOD_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class PruningPlan:
    """What is cut out of a model, and how that was chosen.

    Attributes:
        method: How the ranking came about: ``relevance``, ``greedy``, a baseline, ``heads`` or ``layers<k>_heads``.
        score: Which score was ranked: ``r``, ``jsd`` or ``dprob``, or a baseline's own.
        mode: ``lowest``, ``highest`` (the control) or ``none`` (the unpruned model).
        k: How many layers or heads are removed.
        removed_layers: Original indices, ascending.
        removed_heads: Heads by original index, ascending.
        seed: Seed of the choice, where it is random.
    """

    method: str
    score: str
    mode: str
    k: int
    removed_layers: tuple[int, ...] = ()
    removed_heads: tuple[Unit, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if not METHOD_NAME.fullmatch(self.method):
            raise ValueError(f"A method's name is lower-case words joined by underscores, got {self.method!r}.")
        known = (*SCORES, *BASELINES.values())
        if self.score not in known:
            raise ValueError(f"score must be one of {', '.join(known)}, got {self.score!r}.")
        if self.mode not in (*MODES, "none"):
            raise ValueError(f"mode must be one of {', '.join(MODES)}, none, got {self.mode!r}.")
        for name, removed in (("removed_layers", self.removed_layers), ("removed_heads", self.removed_heads)):
            if list(removed) != sorted(set(removed)):  # type: ignore[type-var]
                raise ValueError(f"{name} must be ascending and name nothing twice, got {removed}.")
        count = len(self.removed_layers) + len(self.removed_heads)
        if self.k != count:
            raise ValueError(f"k must be the number of layers and heads removed, which is {count}, got {self.k}.")
        if (self.mode == "none") != (count == 0):
            raise ValueError(f"Mode none goes with removing nothing; got mode {self.mode!r} and {count} removed.")

    @property
    def plan_id(self) -> str:
        """Name of the plan, and of the folder it is exported to."""
        seed = "" if self.seed is None else f"-seed{self.seed}"
        return f"{self.method}-{self.score}-{self.mode}-k{self.k}{seed}"


def unpruned_plan(score: str = "r") -> PruningPlan:
    """Return the plan that removes nothing: the reference row of every table."""
    return PruningPlan("relevance", score, "none", 0)
