"""Choosing what to cut: the plans of every way of pruning asked for, with the scores that they rest on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd

from sightline.pruning.baselines import baseline_scores, last_scores, random_scores
from sightline.pruning.greedy import greedy_cuts
from sightline.pruning.plan import BASELINES, PruningPlan, unpruned_plan, unremoved_plan
from sightline.pruning.request import Mode, PruningRequest, Score
from sightline.pruning.scored_model import ScoredModel
from sightline.pruning.selection import head_plans, nested_plans, one_shot_plans, relevance_ranking
from sightline.relevance.cut_gap import cut_gaps
from sightline.relevance.race_settings import is_exact, promise_of
from sightline.relevance.ranking import check_race, layer_means, layer_order, rank_units
from sightline.types import Unit

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """A plan and why it was chosen.

    Attributes:
        plan: What to cut.
        scores: What was ranked, by layer (``3``) or head (``3:attention:0``).
        ranking: Where these scores come from; holds ``weights_sha256``.
        order: The full model's removable layers, the least relevant first, where the unpruned model is to know them.
    """

    plan: PruningPlan
    scores: dict[str, float]
    ranking: dict[str, Any]
    order: list[int] | None = None


class PlanChooser:
    """Turns a request into plans. Every process of the job makes one, and all come to the same plans."""

    def __init__(self, model: ScoredModel, request: PruningRequest) -> None:
        self.model = model
        self.request = request
        self.layers = model.backbone.layers

    def choose(self) -> list[Choice]:
        """Return all plans asked for, but for targets, which need measurements (`sightline.planning`).

        Scores that are missing and are no ablation of the full model are computed on the way.

        Raises:
            ValueError: If something cannot be cut, or scores are of other weights or data.
            FileNotFoundError: If the model was not ablated and a plan needs it.
        """
        self._together(lambda: self.request.check(self.model.backbone))
        choices: list[Choice] = []
        for method in dict.fromkeys(self.request.methods if self.request.depths else ()):
            if method == "relevance":
                for score in dict.fromkeys((self.request.score, *self.request.scores)):
                    choices += self._together(partial(self._relevance, score, self.request.depths, self.request.modes))
            elif method == "greedy":
                choices += self._greedy()
            else:
                choices += self._baseline(method)
        if self.request.heads:
            without = [0, *self.request.heads_without_layers]
            choices += self._together(partial(self._heads, self.request.heads, self.request.modes, without))
        return choices + self._together(self._tokens)

    def full(self) -> Choice:
        """Return the unpruned model with its ranking; a race decides sets and leaves the order within them open."""
        return self._together(self._full)

    def every_depth(self) -> list[Choice]:
        """Return the one-shot plans of the least relevant layers for all depths, the shallowest first.

        Raises:
            ValueError: If the layers were raced, which decides single sets.
        """
        return self._together(self._every_depth)

    def _full(self) -> Choice:
        table, entry = self.model.ablation("layers")
        race = entry.get("race")
        means = layer_means(table, self.request.score, race)
        order = None if race is not None else relevance_ranking(means, self.layers)
        return Choice(unpruned_plan(self.request.score), _by_name(means), entry, order)

    def _relevance(self, score: Score, depths: Sequence[int], modes: Sequence[Mode]) -> list[Choice]:
        """One-shot plans by the mean relevance of every layer."""
        table, entry = self.model.ablation("layers")
        removable, race = self._removable(), entry.get("race")
        if race is not None:
            check_race(race, score, removable, depths, modes)
            if self.model.ranks.rank == 0 and not is_exact(race):
                log.warning(promise_of(race))
        order = layer_order(table, score, race)
        plans = one_shot_plans(order, self.layers, depths, modes, score)
        if self.model.ranks.rank == 0:
            ranking = rank_units(table, score, race)
            ranking = ranking[ranking["layer"].isin(removable)]
            for gap in cut_gaps(ranking, depths, modes, entry["noise_floor"]):
                if not gap.clear:
                    log.warning(gap.warning)
        means = _by_name(layer_means(table, score, race))
        return [Choice(plan, means, entry) for plan in plans]

    def _every_depth(self) -> list[Choice]:
        table, entry = self.model.ablation("layers")
        if entry.get("race") is not None:
            raise ValueError(
                "A target is searched over all depths, but the layers were raced for single sets. Score them in full: "
                "train.py ablate --overwrite true."
            )
        means = layer_means(table, self.request.score)
        depths = range(1, len(self._removable()) + 1)
        plans = one_shot_plans(means, self.layers, depths, ["lowest"], self.request.score)
        return [Choice(plan, _by_name(means), entry) for plan in plans]

    def _greedy(self) -> list[Choice]:
        """Plans by relevance that is scored again after every cut; the first cut goes by the full model's table."""
        request = self.request
        full, entry = self._together(lambda: self.model.ablation("layers"))
        race = entry.get("race")
        if race is not None:
            self._together(lambda: check_race(race, request.score, self._removable(), [1], request.modes))

        def means_without(removed: tuple[int, ...]) -> pd.Series:
            if not removed:
                return layer_order(full, request.score, race)
            return layer_means(self.model.ablation_without(removed, entry), request.score)

        choices = []
        for mode in dict.fromkeys(request.modes):
            cuts = greedy_cuts(self.layers, max(request.depths, default=0), mode, means_without)
            order = [cut.layer for cut in cuts]
            scores = {str(cut.layer): cut.mean for cut in cuts}
            for plan in nested_plans(order, self.layers, request.depths, mode, request.score, "greedy"):
                choices.append(Choice(plan, scores, {**entry, "order": order}))
        return choices

    def _heads(self, wanted: Sequence[float], modes: Sequence[Mode], without: Sequence[int] = (0,)) -> list[Choice]:
        """One-shot plans by the mean relevance of every head, beside the removal of so many layers."""
        score = self.request.score
        table, entry = self.model.ablation("heads")
        if entry.get("race") is not None:
            raise ValueError(
                "Heads are chosen by their means over all clips, but they were raced, and means over different clips "
                "cannot be compared. Score them in full: train.py ablate --overwrite true."
            )
        ranking = rank_units(table, score)[["layer", "site", "head", "mean"]]
        means = {Unit(int(i), str(site), int(h)): float(mean) for i, site, h, mean in ranking.itertuples(index=False)}
        plans = []
        for k in dict.fromkeys(without):
            gone = None
            if k:
                layers = layer_means(self.model.ablation("layers")[0], score)
                beside = one_shot_plans(layers, self.layers, [k], modes, score)
                gone = {plan.mode: plan.removed_layers for plan in beside}
            plans += head_plans(means, wanted, modes, score, gone)
        scores = {f"{unit.layer}:{unit.site}:{unit.head}": mean for unit, mean in sorted(means.items())}
        return [Choice(plan, scores, entry) for plan in plans]

    def _tokens(self) -> list[Choice]:
        """Every token reduction alone, and with the least relevant layers or heads removed."""
        request = self.request
        reductions = list(dict.fromkeys(request.tokens))
        choices = [
            Choice(unremoved_plan(tokens), {}, {"weights_sha256": self.model.weights_sha256}) for tokens in reductions
        ]
        cut: list[Choice] = []
        if request.tokens_without_layers:
            cut += self._relevance(request.score, request.tokens_without_layers, ["lowest"])
        if request.tokens_without_heads:
            cut += self._heads(request.tokens_without_heads, ["lowest"])
        return choices + [
            replace(choice, plan=replace(choice.plan, tokens=tokens)) for tokens in reductions for choice in cut
        ]

    def _baseline(self, method: str) -> list[Choice]:
        """One-shot plans by something else than relevance; what is least by it goes."""
        if method == "random":
            drawn = {seed: random_scores(self.layers, seed) for seed in dict.fromkeys(self.request.random_seeds)}
            return [choice for seed, scores in drawn.items() for choice in self._lowest(method, scores, {}, seed)]
        if method == "last":
            return self._lowest(method, last_scores(self.layers), {})
        content = dict(self.model.baselines())
        scores = baseline_scores(content, method)
        del content["scores"]
        return self._lowest(method, scores, content)

    def _lowest(
        self, method: str, scores: pd.Series, ranking: Mapping[str, Any], seed: int | None = None
    ) -> list[Choice]:
        plans = one_shot_plans(scores, self.layers, self.request.depths, ["lowest"], BASELINES[method], method, seed)
        ranking = {"weights_sha256": self.model.weights_sha256, **ranking}
        return [Choice(plan, _by_name(scores), dict(ranking)) for plan in plans]

    def _removable(self) -> list[int]:
        return [info.index for info in self.layers if info.removable]

    def _together(self, action: Callable[[], T]) -> T:
        done = self.model.ranks.together(action)
        return done  # type: ignore[return-value]  # None only where one process acts for all


def _by_name(scores: pd.Series) -> dict[str, float]:
    return {str(name): float(value) for name, value in scores.items()}
