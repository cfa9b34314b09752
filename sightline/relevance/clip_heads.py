"""Which heads to look at on one clip: the most and the least relevant at every depth, and its class's specialised ones.

A clip that was scored has heads of its own. Where it was not, those of the scored clips of its class stand in.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from sightline.relevance.heads import extreme_heads, specialised_heads
from sightline.types import Unit


@dataclass(frozen=True)
class ShownHead:
    """A head and why it is shown.

    Attributes:
        unit: The head.
        depth: ``early``, ``intermediate`` or ``deep``; ``all`` where it was chosen from all layers.
        choice: ``most`` or ``least`` relevant, or ``specialised``.
        score: Its relevance on the scored clips.
    """

    unit: Unit
    depth: str
    choice: str
    score: float


@dataclass(frozen=True)
class ClipHeads:
    """The heads to look at on one clip.

    Attributes:
        extremes: The most and the least relevant, by site, depth and extreme.
        specialised: One per site, most relevant to the clip's class among the last layers.
        scored: How many clips the scores are means over; 0 where they are those of the clip itself.
    """

    extremes: tuple[ShownHead, ...]
    specialised: tuple[ShownHead, ...]
    scored: int


class HeadChooser:
    """Chooses heads for clips from a score table."""

    def __init__(
        self, table: pd.DataFrame, class_names: Sequence[str], early: int, deep: int, last: int, score: str = "r"
    ) -> None:
        """Read the table.

        Args:
            table: A score table of heads, of any split, not of a race.
            class_names: Names of the classes by label.
            early: How many of the first layers are early.
            deep: How many of the last layers are deep.
            last: How many of the last layers specialised heads are chosen from.
            score: ``r``, ``jsd`` or ``dprob``.

        Raises:
            ValueError: If the table is of layers or of a race, or a number of layers is impossible.
        """
        self._table, self._class_names = table, class_names
        self._early, self._deep, self._score = early, deep, score
        # Margins and their intervals are in tables/specialised_heads_*.csv; here only the choice is wanted.
        self._specialised = specialised_heads(table, class_names, last, score, resamples=1)
        self._rows_of = table.groupby("sample_id", observed=True).indices

    def choose(self, sample_id: str, label: int) -> ClipHeads:
        """Return the heads of a clip; without a name, those that the scored clips of a class have together.

        Raises:
            ValueError: If neither the clip nor its class was scored.
        """
        own = sample_id in self._rows_of
        rows = self._table.iloc[self._rows_of[sample_id]] if own else self._table[self._table["label"] == label]
        if rows.empty:
            name = self._class_names[label] if label < len(self._class_names) else str(label)
            none = f"Neither {sample_id} nor any other clip" if sample_id else "No clip"
            raise ValueError(
                f"{none} of {name} was scored, so no heads can be chosen for it. Score a split that has the class: "
                "train.py ablate --split."
            )
        found = extreme_heads(rows, "data set", self._class_names, self._early, self._deep, self._score)
        extremes = tuple(
            ShownHead(_unit(row), row["depth"], row["extreme"], float(row["mean"])) for row in found.to_dict("records")
        )
        means = rows.groupby(["layer", "site", "head"], observed=True)[self._score].mean()
        of_class = map(_unit, self._specialised[self._specialised["label"] == label].to_dict("records"))
        specialised = tuple(
            ShownHead(unit, "deep", "specialised", float(means[(unit.layer, unit.site, unit.head)]))
            for unit in of_class
        )
        return ClipHeads(extremes, specialised, 0 if own else rows["sample_id"].nunique())

    @cached_property
    def most_relevant(self) -> tuple[ShownHead, ...]:
        """The most relevant head of every site over all scored clips, out of all layers."""
        found = extreme_heads(self._table, "data set", self._class_names, self._early, self._deep, self._score)
        best = found[(found["depth"] == "all") & (found["extreme"] == "most")]
        return tuple(ShownHead(_unit(row), "all", "most", float(row["mean"])) for row in best.to_dict("records"))


def _unit(row: Mapping[Hashable, Any]) -> Unit:
    return Unit(int(row["layer"]), row["site"], int(row["head"]))
