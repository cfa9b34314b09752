"""What a race is for, how sure it has to be, and what may be said of its result."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger(__name__)

MIN_SAMPLES = 100
"""Samples before the first decision of an approximate race, if not given."""
RARE = 0.05
"""Classes with a smaller share of the samples are too rare for an approximate race."""


@dataclass(frozen=True)
class RaceSettings:
    """What is raced for, and how sure it has to be; docs/relevance.md compares the methods.

    Attributes:
        ks: Sizes of the sets of least (and most) relevant units that are wanted.
        modes: Whether the least relevant units are wanted, the most relevant, or both.
        score: The score whose mean ranks the units.
        confidence: Probability that all these sets are those of the full data; nominal where approximate.
        method: ``guaranteed`` keeps the confidence whatever the scores are; ``approximate`` takes means for nearly
            normal, saves more, and can miss what rare clips need.
        tolerance: Let a unit stand in for one whose mean is lower (higher) by no more than this; guaranteed too.
        min_samples: Samples before the first decision of an approximate race; 100 if not given.
        seed: Seed of the order in which samples are taken.
    """

    ks: tuple[int, ...] = (1, 2, 3)
    modes: tuple[Literal["lowest", "highest"], ...] = ("lowest", "highest")
    score: Literal["r", "jsd", "dprob"] = "r"
    confidence: float = 0.99
    method: Literal["guaranteed", "approximate"] = "guaranteed"
    tolerance: float = 0.0
    min_samples: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        sets = f"{' and '.join(self.modes)} {' '.join(map(str, self.ks))} by {self.score}"
        if self.approximate:
            return (
                f"racing for {sets}, approximate, nominal {self.confidence}, first look {self.first}, seed {self.seed}"
            )
        within = f" within {self.tolerance}" if self.tolerance else ""
        return f"racing for {sets}{within}, guaranteed at {self.confidence}, seed {self.seed}"

    @property
    def approximate(self) -> bool:
        return self.method == "approximate"

    @property
    def first(self) -> int:
        """Samples before the first decision of an approximate race."""
        return MIN_SAMPLES if self.min_samples is None else self.min_samples

    def check(self, units: int | None = None) -> None:
        """Raise ValueError where settings make no sense, alone or for this number of units."""
        if not self.ks or min(self.ks) < 1 or (units is not None and max(self.ks) > units):
            most = "" if units is None else f" and at most the number of units, {units}"
            raise ValueError(f"race.ks must be sizes of sets of at least 1{most}; got {list(self.ks)}.")
        if not self.modes or set(self.modes) - {"lowest", "highest"}:
            raise ValueError(f"race.modes must be lowest, highest or both, got {list(self.modes)}.")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"race.confidence must be at least 0.5 and below 1, got {self.confidence}.")
        if self.method not in ("guaranteed", "approximate"):
            raise ValueError(f"race.method must be guaranteed or approximate, got {self.method!r}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"race.tolerance must be at least 0 and below 1, the range of a score; got {self.tolerance}."
            )
        if self.approximate and self.tolerance:
            raise ValueError(
                "race.tolerance needs race.method guaranteed; an approximate race has none. Leave one out."
            )
        if not self.approximate and self.min_samples is not None:
            raise ValueError(
                f"race.min_samples is {self.min_samples}, but a guaranteed race needs no minimum. Leave it out (null), "
                "or set race.method to approximate, the method of earlier versions."
            )
        if self.first < 2:
            raise ValueError(f"race.min_samples must be at least 2, got {self.min_samples}.")

    def warnings(self, classes: Sequence[str]) -> list[str]:
        """Say what makes the result less sure than it may seem.

        Args:
            classes: The class of every sample that is raced over.
        """
        found = []
        if self.confidence < 0.9:
            found.append(
                f"A confidence of {self.confidence:g} lets one race in {1 / (1 - self.confidence):.1f} be wrong."
            )
        if not self.approximate:
            return found
        if self.first < MIN_SAMPLES:
            found.append(
                f"The race decides after {self.first} clips. Below {MIN_SAMPLES} the nominal confidence means little: "
                "means of few skewed scores are far from normal. Leave race.min_samples out."
            )
        counts = Counter(classes)
        rare = {name: count for name, count in counts.items() if count < RARE * len(classes)}
        if rare:
            name = min(rare, key=lambda name: (rare[name], name))
            found.append(
                f"{len(rare)} of {len(counts)} classes have less than {RARE:.0%} of the clips (fewest: {name}, "
                f"{rare[name] / len(classes):.1%}). An approximate race can overlook a unit that only they need, and "
                f"its nominal confidence of {self.confidence:g} does not cover this. Use race.method guaranteed, "
                "perhaps with a race.tolerance, or sampling full."
            )
        return found

    def promise(self) -> dict[str, Any]:
        """Return what a manifest says of how sure the sets are; `promise_of` puts it into words."""
        if self.approximate:
            return {"method": self.method, "nominal_confidence": self.confidence, "min_samples": self.first}
        return {"method": self.method, "confidence": self.confidence, "tolerance": self.tolerance}


def is_exact(race: Mapping[str, Any]) -> bool:
    """Whether the sets of a race, as a manifest records it, are guaranteed to be those of all samples."""
    return race.get("method") == "guaranteed" and not race["tolerance"]


def promise_of(race: Mapping[str, Any]) -> str:
    """Say in one sentence how sure the sets of a race are, from what the manifest says of it.

    Races that earlier versions recorded name no method: they were approximate.
    """
    if race.get("method", "approximate") == "approximate":
        confidence = race.get("nominal_confidence", race.get("confidence"))
        nominal = "" if confidence is None else f" at a nominal {confidence:g}"
        return f"The race was approximate: its sets are those of all clips{nominal}, which nothing guarantees."
    sure = f"guaranteed with a probability of at least {race['confidence']:g}"
    if race["tolerance"]:
        return (
            f"The race's sets are those of all clips within a tolerance of {race['tolerance']:g}, {sure}: a chosen "
            f"unit's mean {race['score']} is beyond that of one left out by no more than this."
        )
    return f"The race's sets are those of all clips, {sure}."
