"""What a user asks to be cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.backbones import Backbone
from sightline.backbones.contract.reducer import ReductionPoints
from sightline.pruning.selection import check_depths, head_count
from sightline.pruning.targets import Targets
from sightline.tokens.spec import TokenReduction

Method = Literal["relevance", "greedy", "random", "block_influence", "gradient", "last"]
Mode = Literal["lowest", "highest"]
Score = Literal["r", "jsd", "dprob"]


@dataclass(frozen=True)
class PruningRequest:
    """What to cut; the options of `callbacks.PrunedCheckpoints` of the same names say what each means."""

    depths: Sequence[int] = (1, 2, 3)
    modes: Sequence[Mode] = ("lowest", "highest")
    score: Score = "r"
    scores: Sequence[Score] = ()
    methods: Sequence[Method] = ("relevance",)
    random_seeds: Sequence[int] = (0, 1, 2)
    targets: Targets | None = None
    heads: Sequence[float] = ()
    heads_without_layers: Sequence[int] = ()
    tokens: Sequence[TokenReduction] = ()
    tokens_without_layers: Sequence[int] = ()
    tokens_without_heads: Sequence[float] = ()

    @property
    def ranks_units(self) -> bool:
        """Whether layers or heads are to be removed, and not only the tokens to be others."""
        return bool(self.depths or self.targets or self.heads or self.tokens_without_layers)

    def check(self, backbone: Backbone) -> None:
        """Raise ValueError where a model cannot be cut like this; needs no scores."""
        if not (self.depths or self.targets or self.heads or self.tokens):
            raise ValueError("There is nothing to prune: give depths, targets, heads or tokens.")
        layers = backbone.layers
        check_depths([*self.depths, *self.heads_without_layers, *self.tokens_without_layers], layers)
        if self.heads_without_layers and not self.heads:
            raise ValueError("heads_without_layers needs heads, the numbers or shares of heads to remove.")
        for name in ("tokens_without_layers", "tokens_without_heads"):
            if getattr(self, name) and not self.tokens:
                raise ValueError(f"{name} needs tokens, the token reductions to run with.")
        for tokens in self.tokens:
            ReductionPoints(backbone, tokens.build())  # its checks
        total = sum(len(site.heads) for info in layers for site in info.sites)
        for wanted in (*self.heads, *self.tokens_without_heads):
            head_count(wanted, total)
