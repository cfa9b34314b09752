"""The depth that meets a target, searched along plans that differ in nothing but their depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from sightline.pruning.plan import PruningPlan
from sightline.run.ranks import Ranks

# What each limit bounds, in words; cheapest to measure first.
LIMITS = {
    "max_gmacs": "billion multiply-adds per clip",
    "max_latency_ms": "ms per clip at batch 1",
    "max_drop": "points of validation top-1 lost",
}


class UnmetTargetsError(ValueError):
    """No depth meets the targets. What else was asked for is made and tested, and the depths tried are in a table."""


@dataclass(frozen=True)
class Targets:
    """What a pruned model must meet: all limits that are given.

    Attributes:
        max_drop: Points of validation top-1 that may be lost; the deepest plan within all limits is taken.
        max_gmacs: Billions of multiply-adds per clip; without `max_drop`, the shallowest plan within is taken.
        max_latency_ms: Milliseconds per clip at batch 1 on the device at hand; likewise.
    """

    max_drop: float | None = None
    max_gmacs: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError(f"Targets need at least one of {', '.join(LIMITS)}.")
        for name, limit in self.limits.items():
            if limit < 0 or (limit == 0 and name != "max_drop"):
                raise ValueError(f"{name} must be positive, got {limit:g}.")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are given, cheapest to measure first."""
        given = asdict(self)
        return {name: given[name] for name in LIMITS if given[name] is not None}


@dataclass(frozen=True)
class Trial:
    """A plan that was tried.

    Attributes:
        plan: The plan.
        values: What was measured, by the name of its limit; the first that is not met ends a trial.
        meets: Whether the plan is within all limits.
    """

    plan: PruningPlan
    values: dict[str, float | None]
    meets: bool


def search(
    plans: Sequence[PruningPlan],
    targets: Targets,
    measures: Mapping[str, Callable[[PruningPlan], float | None]],
    ranks: Ranks | None = None,
) -> list[Trial]:
    """Try plans until one meets the targets: from the deepest where a loss is limited, else from the shallowest.

    Args:
        plans: One per depth, the shallowest first.
        targets: The limits.
        measures: By the name of a limit, what to measure; only rank 0's value counts.
        ranks: The processes of the job, which must take the same way.

    Returns:
        The trials in order; the last one meets the targets, or none does.
    """
    ranks = ranks or Ranks()
    trials: list[Trial] = []
    for plan in reversed(plans) if targets.max_drop is not None else plans:
        values: dict[str, float | None] = {}
        meets = True
        for name, limit in targets.limits.items():
            value = measures[name](plan)
            values[name] = value
            meets = ranks.all_true(ranks.rank > 0 or (value is not None and value <= limit))
            if not meets:
                break
        trials.append(Trial(plan, values, meets))
        if meets:
            break
    return trials


def unmet(trials: Sequence[Trial], targets: Targets) -> str:
    """Say that no plan meets the targets, and which comes nearest to each limit that was missed."""
    parts = []
    for name, limit in targets.limits.items():
        measured = [(trial.values[name], trial.plan) for trial in trials if trial.values.get(name) is not None]
        value, plan = min(measured, key=lambda pair: pair[0], default=(None, None))  # type: ignore[arg-type, return-value]
        if value is not None and plan is not None:
            parts.append(f"{name} {limit:g}: the nearest is {plan.plan_id} with {value:.4g} {LIMITS[name]}")
    return f"No depth meets the targets ({'; '.join(parts)}). Raise a limit, or start from a smaller backbone."
