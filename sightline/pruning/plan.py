"""What is cut from a model: layers, heads, tokens and the number format, under one name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sightline.tokens.spec import TokenReduction
from sightline.types import Unit

SCORES = ("r", "jsd", "dprob")
BASELINES = {"random": "draw", "block_influence": "cosine", "gradient": "taylor", "last": "from_end"}
"""What rankings by other means than relevance go by: the name of each one's score."""
MODES = ("lowest", "highest")
UNRANKED = "none"
"""The score of plans that remove no layer and no head: nothing was ranked for them."""
ALONE = {"tokens": "reduced", "format": "converted"}
"""Method and mode of plans that change nothing but the tokens (perhaps with a number format), or the number format."""
FORMATS = ("fp32", "bf16", "int8")
"""Number formats of a runtime, the reference first."""
# Underscores, no hyphens: hyphens separate the parts of a plan's id, which is also a folder's name.
METHOD_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class PruningPlan:
    """What is cut from a model, and how that was chosen.

    Attributes:
        method: How the ranking came about: ``relevance``, ``greedy``, a baseline, ``heads`` or ``layers<k>_heads``;
            ``tokens`` or ``format`` where no layer and no head is removed.
        score: Which score was ranked: ``r``, ``jsd`` or ``dprob``, or a baseline's own; `UNRANKED` of the methods
            ``tokens`` and ``format``.
        mode: ``lowest``, ``highest`` (the control), ``none`` (the reference model), or as `ALONE` says.
        k: How many layers or heads are removed.
        removed_layers: Original indices, ascending.
        removed_heads: Heads by original index, ascending.
        seed: Seed of the choice, where it is random.
        tokens: The token reduction that the model runs with; None for all tokens.
        format: Number format of the runtime, one of `FORMATS`.
    """

    method: str
    score: str
    mode: str
    k: int
    removed_layers: tuple[int, ...] = ()
    removed_heads: tuple[Unit, ...] = ()
    seed: int | None = None
    tokens: TokenReduction | None = None
    format: str = FORMATS[0]

    def __post_init__(self) -> None:
        if not METHOD_NAME.fullmatch(self.method):
            raise ValueError(f"A method's name is lower-case words joined by underscores, got {self.method!r}.")
        if self.format not in FORMATS:
            raise ValueError(f"The number format must be one of {', '.join(FORMATS)}, got {self.format!r}.")
        for name, removed in (("removed_layers", self.removed_layers), ("removed_heads", self.removed_heads)):
            if list(removed) != sorted(set(removed)):  # type: ignore[type-var]
                raise ValueError(f"{name} must be ascending and name nothing twice, got {removed}.")
        count = len(self.removed_layers) + len(self.removed_heads)
        if self.k != count:
            raise ValueError(f"k must be the number of layers and heads removed, which is {count}, got {self.k}.")
        alone = None
        if count == 0 and (self.tokens is not None or self.format != FORMATS[0]):
            alone = "format" if self.tokens is None else "tokens"
        self._check_names(alone)

    def _check_names(self, alone: str | None) -> None:
        """Raise ValueError where method, score and mode are not those of what the plan changes."""
        told = (self.method, self.score, self.mode)
        if alone is not None and told != (alone, UNRANKED, ALONE[alone]):
            raise ValueError(
                f"A plan that changes the {alone} alone has method {alone}, score {UNRANKED} and mode {ALONE[alone]}; "
                f"got {', '.join(told)}."
            )
        if alone is not None:
            return
        if self.method in ALONE:
            raise ValueError(
                f"The method {self.method} is of plans that remove no layer and no head and change the {self.method}; "
                f"this one removes {self.k} and has tokens {self.tokens and self.tokens.label} and {self.format}."
            )
        known = (*SCORES, *BASELINES.values())
        if self.score not in known:
            raise ValueError(f"score must be one of {', '.join(known)}, got {self.score!r}.")
        if self.mode not in (*MODES, "none"):
            raise ValueError(f"mode must be one of {', '.join(MODES)}, none, got {self.mode!r}.")
        if (self.mode == "none") != (self.k == 0):
            raise ValueError(f"Mode none goes with removing nothing; got mode {self.mode!r} and {self.k} removed.")

    @property
    def plan_id(self) -> str:
        """Name of the plan, and of the folder it is exported to."""
        parts = [self.method, self.score, self.mode, f"k{self.k}"]
        parts += [] if self.seed is None else [f"seed{self.seed}"]
        parts += [] if self.tokens is None else [self.tokens.label]
        parts += [] if self.format == FORMATS[0] else [self.format]
        return "-".join(parts)


def unpruned_plan(score: str = "r") -> PruningPlan:
    """Return the plan that changes nothing: the reference row of every table."""
    return PruningPlan("relevance", score, "none", 0)


def unremoved_plan(tokens: TokenReduction | None = None, format: str = FORMATS[0]) -> PruningPlan:
    """Return the plan that keeps all layers and heads and changes the tokens, the number format or both."""
    method = "format" if tokens is None else "tokens"
    return PruningPlan(method, UNRANKED, ALONE[method], 0, tokens=tokens, format=format)
