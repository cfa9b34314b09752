"""Choosing what `prune` cuts: the plans of every way of pruning asked for, with the scores that they rest on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pandas as pd
import torch

from callbacks.analysis import Context
from callbacks.pruning_targets import search_depth
from sightline.backbones.fingerprint import weights_sha256
from sightline.export.depth import relevance_ranking
from sightline.pruning.baselines import baseline_scores, last_scores, random_scores, score_baselines
from sightline.pruning.greedy import greedy_cuts, score_without
from sightline.pruning.plan import (
    BASELINES,
    PruningPlan,
    check_depths,
    head_count,
    head_plans,
    nested_plans,
    one_shot_plans,
    unpruned_plan,
)
from sightline.pruning.targets import Targets, unmet
from sightline.relevance.cut_gap import cut_gaps
from sightline.relevance.ranking import check_race, layer_means, layer_order, rank_units
from sightline.relevance.table import read_manifest, read_scores
from sightline.types import ClipBatch, LayerInfo, Unit

log = logging.getLogger(__name__)

Method = Literal["relevance", "greedy", "random", "block_influence", "gradient", "last"]
Mode = Literal["lowest", "highest"]
Score = Literal["r", "jsd", "dprob"]


@dataclass(frozen=True)
class Choice:
    """A plan and why it was chosen.

    Attributes:
        plan: What to cut.
        scores: What was ranked, by layer (``3``) or head (``3:attention:0``).
        ranking: Where these scores come from; holds ``weights_sha256``.
        order: The full model's removable layers, the least relevant first, where the unpruned model shall know them.
    """

    plan: PruningPlan
    scores: dict[str, float]
    ranking: dict[str, Any]
    order: list[int] | None = None


@dataclass(frozen=True)
class PruningRequest:
    """What shall be cut; the options of `PrunedCheckpoints` of the same names say what each means."""

    depths: Sequence[int] = (1, 2, 3)
    modes: Sequence[Mode] = ("lowest", "highest")
    score: Score = "r"
    scores: Sequence[Score] = ()
    methods: Sequence[Method] = ("relevance",)
    random_seeds: Sequence[int] = (0, 1, 2)
    targets: Targets | None = None
    heads: Sequence[float] = ()
    heads_without_layers: Sequence[int] = ()
    batch_size: int | None = None

    def check(self, layers: tuple[LayerInfo, ...]) -> None:
        """Raise ValueError where a model with these layers cannot be cut so; needs no scores."""
        if not (self.depths or self.targets or self.heads):
            raise ValueError("There is nothing to prune: give depths, targets or heads.")
        check_depths([*self.depths, *self.heads_without_layers], layers)
        if self.heads_without_layers and not self.heads:
            raise ValueError("heads_without_layers needs heads, the numbers or shares of heads to remove.")
        total = sum(len(site.heads) for info in layers for site in info.sites)
        for wanted in self.heads:
            head_count(wanted, total)


class PlanChooser:
    """Turns wishes into plans. Every process of the job makes one, and all come to the same plans.

    Attributes:
        unmet: Why there is no plan for the targets, where they were asked for and none meets them.
    """

    def __init__(self, context: Context, wishes: PruningRequest) -> None:
        self.context = context
        self.wishes = wishes
        self.layers = context.backbone.layers
        self.weights = weights_sha256(context.backbone)
        self.unmet: str | None = None

    def choose(self) -> list[Choice]:
        """Return all plans asked for; scores that are missing for them and are no ablation of the full model, are
        computed on the way.

        Raises:
            ValueError: If something cannot be cut, or scores are of other weights or data.
            FileNotFoundError: If the model was not ablated and a plan needs it.
        """
        self._together(self._check_model)
        choices: list[Choice] = []
        for method in dict.fromkeys(self.wishes.methods):
            if method == "relevance":
                for score in dict.fromkeys((self.wishes.score, *self.wishes.scores)):
                    choices += self._together(partial(self._relevance, score))
            elif method == "greedy":
                choices += self._greedy()
            else:
                choices += self._baseline(method)
        if self.wishes.targets is not None:
            choices += self._target(self.wishes.targets)
        if self.wishes.heads:
            choices += self._together(self._heads)
        # A target may be met at a depth that was asked for anyway.
        return list({choice.plan.plan_id: choice for choice in choices}.values())

    def full(self) -> Choice:
        """Return the unpruned model with its ranking; a race decides sets and leaves the order within them open."""
        return self._together(self._full)

    def _full(self) -> Choice:
        table, entry = self._ablation("layers")
        race = entry.get("race")
        means = layer_means(table, self.wishes.score, race)
        order = None if race is not None else relevance_ranking(means, self.layers)
        return Choice(unpruned_plan(self.wishes.score), _by_name(means), entry, order)

    def _check_model(self) -> None:
        hparams = self.context.module.hparams
        if hparams["removed_layers"] or hparams["removed_heads"]:
            raise ValueError(
                "The checkpoint holds a model from which layers or heads were removed already. Prune the full model: "
                "the depths count from there."
            )
        self.wishes.check(self.layers)

    def _relevance(self, score: Score) -> list[Choice]:
        """One-shot plans by the mean relevance of every layer."""
        table, entry = self._ablation("layers")
        wishes, race = self.wishes, entry.get("race")
        removable = [info.index for info in self.layers if info.removable]
        if race is not None:
            check_race(race, score, removable, wishes.depths, wishes.modes)
        order = layer_order(table, score, race)
        plans = one_shot_plans(order, self.layers, wishes.depths, wishes.modes, score)
        if self.context.ranks.rank == 0:
            ranking = rank_units(table, score, race)
            ranking = ranking[ranking["layer"].isin(removable)]
            for gap in cut_gaps(ranking, wishes.depths, wishes.modes, entry["noise_floor"]):
                if not gap.clear:
                    log.warning(gap.warning)
        means = _by_name(layer_means(table, score, race))
        return [Choice(plan, means, entry) for plan in plans]

    def _target(self, targets: Targets) -> list[Choice]:
        """The one-shot plan, out of all depths, that meets the targets; none where no depth does."""
        choices = self._together(self._every_depth)
        trials = search_depth(self.context, [choice.plan for choice in choices], targets, self.wishes.batch_size)
        if not trials[-1].meets:
            self.unmet = unmet(trials, targets)
        return [choice for choice in choices if trials[-1].meets and choice.plan == trials[-1].plan]

    def _every_depth(self) -> list[Choice]:
        table, entry = self._ablation("layers")
        if entry.get("race") is not None:
            raise ValueError(
                "A target is searched over all depths, but the layers were raced for single sets. Score them in full: "
                "train.py ablate --overwrite true."
            )
        means = layer_means(table, self.wishes.score)
        depths = range(1, sum(info.removable for info in self.layers) + 1)
        plans = one_shot_plans(means, self.layers, depths, ["lowest"], self.wishes.score)
        return [Choice(plan, _by_name(means), entry) for plan in plans]

    def _greedy(self) -> list[Choice]:
        """Plans by relevance that is scored again after every cut; the first cut goes by the full model's table."""
        wishes = self.wishes
        full, entry = self._together(lambda: self._ablation("layers"))
        race = entry.get("race")
        if race is not None:
            removable = [info.index for info in self.layers if info.removable]
            self._together(lambda: check_race(race, wishes.score, removable, [1], wishes.modes))

        def means_without(removed: tuple[int, ...]) -> pd.Series:
            if not removed:
                return layer_order(full, wishes.score, race)
            return layer_means(self._scored_without(removed, entry), wishes.score)

        choices = []
        for mode in dict.fromkeys(wishes.modes):
            cuts = greedy_cuts(self.layers, max(wishes.depths, default=0), mode, means_without)
            order = [cut.layer for cut in cuts]
            scores = {str(cut.layer): cut.mean for cut in cuts}
            for plan in nested_plans(order, self.layers, wishes.depths, mode, wishes.score, "greedy"):
                choices.append(Choice(plan, scores, {**entry, "order": order}))
        return choices

    def _scored_without(self, removed: tuple[int, ...], entry: Mapping[str, Any]) -> pd.DataFrame:
        context = self.context
        return score_without(
            context.backbone,
            removed,
            context.relevance_folder,
            *self._samples(),
            data_sha256=entry["data_sha256"],
            precision=entry.get("precision", "float32"),
            ranks=context.ranks,
            provenance=self._provenance(),
        )

    def _heads(self) -> list[Choice]:
        """One-shot plans by the mean relevance of every head, alone and beside the removal of layers."""
        wishes = self.wishes
        table, entry = self._ablation("heads")
        if entry.get("race") is not None:
            raise ValueError(
                "Heads are chosen by their means over all clips, but they were raced, and means over different clips "
                "cannot be compared. Score them in full: train.py ablate --overwrite true."
            )
        ranking = rank_units(table, wishes.score)[["layer", "site", "head", "mean"]]
        means = {Unit(int(i), str(site), int(h)): float(mean) for i, site, h, mean in ranking.itertuples(index=False)}
        plans = head_plans(means, wishes.heads, wishes.modes, wishes.score)
        for k in dict.fromkeys(wishes.heads_without_layers):
            layers = layer_means(self._ablation("layers")[0], wishes.score)
            beside = one_shot_plans(layers, self.layers, [k], wishes.modes, wishes.score)
            gone = {plan.mode: plan.removed_layers for plan in beside}
            plans += head_plans(means, wishes.heads, wishes.modes, wishes.score, gone)
        scores = {f"{unit.layer}:{unit.site}:{unit.head}": mean for unit, mean in sorted(means.items())}
        return [Choice(plan, scores, entry) for plan in plans]

    def _baseline(self, method: str) -> list[Choice]:
        """One-shot plans by something else than relevance; what is least by it goes."""
        if method == "random":
            drawn = {seed: random_scores(self.layers, seed) for seed in dict.fromkeys(self.wishes.random_seeds)}
            return [choice for seed, scores in drawn.items() for choice in self._lowest(method, scores, {}, seed)]
        if method == "last":
            return self._lowest(method, last_scores(self.layers), {})
        content = dict(self._scored_baselines())
        scores = baseline_scores(content, method)
        del content["scores"]
        return self._lowest(method, scores, content)

    def _lowest(
        self, method: str, scores: pd.Series, ranking: Mapping[str, Any], seed: int | None = None
    ) -> list[Choice]:
        plans = one_shot_plans(scores, self.layers, self.wishes.depths, ["lowest"], BASELINES[method], method, seed)
        return [Choice(plan, _by_name(scores), {"weights_sha256": self.weights, **ranking}) for plan in plans]

    def _scored_baselines(self) -> dict[str, Any]:
        context = self.context
        return score_baselines(
            context.backbone,
            context.relevance_folder,
            *self._samples(),
            weights_sha256=self.weights,
            data_sha256=context.data.data_hash(context.split),
            ranks=context.ranks,
            provenance=self._provenance(),
        )

    def _samples(self) -> tuple[list[str], Callable[[list[int]], Iterable[ClipBatch]]]:
        """Names of the samples that decide, and what gives batches of them."""
        context = self.context
        names = [clip.sample_id for clip in context.data.clips(context.split)]
        return names, lambda places: context.batches(context.split, places, self.wishes.batch_size)

    def _provenance(self) -> dict[str, Any]:
        context = self.context
        return {
            "split": context.split,
            "checkpoint": context.checkpoint,
            "versions": {"torch": torch.__version__},
        }

    def _ablation(self, kind: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Read a score table of this model and its entry in the manifest, or raise where it is of another."""
        context = self.context
        table = read_scores(context.relevance_folder, kind)
        entry = read_manifest(context.relevance_folder)["tables"][kind]
        if entry["data_sha256"] != context.data.data_hash(context.split):
            raise ValueError(
                f"The scores in {context.relevance_folder} were made on other clips than the data has now. "
                "Run train.py ablate with --overwrite true first."
            )
        if entry["weights_sha256"] != self.weights:
            raise ValueError(
                f"The scores in {context.relevance_folder} were made with other weights than {context.checkpoint}. "
                "Run train.py ablate with --overwrite true first, or pass the checkpoint that was scored."
            )
        return table, entry

    def _together(self, action: Any) -> Any:
        return self.context.ranks.together(action)


def _by_name(scores: pd.Series) -> dict[str, float]:
    return {str(name): float(value) for name, value in scores.items()}
