"""Scoring a split by racing: units whose place in the sets asked for is settled are not evaluated any more.

Look by look, all processes score the next samples of the race's order, wait for each other, read what all of them
wrote, and decide alike. Parts on disk are the only memory, so a killed job replays them and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sightline.backbones import Backbone
from sightline.relevance.job import score_work
from sightline.relevance.matrix import UNIT
from sightline.relevance.memory import StackSize
from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.racing import Race
from sightline.relevance.table import ScoreTable
from sightline.run.parts import PartStore
from sightline.run.ranks import Ranks
from sightline.run.sharing import SECONDS_PER_PART, Batches, work_through
from sightline.types import Unit

log = logging.getLogger(__name__)


def race_split(
    backbone: Backbone,
    table: ScoreTable,
    sample_ids: Sequence[str],
    batches: Batches,
    settings: RaceSettings,
    *,
    classes: Sequence[str],
    ranks: Ranks | None = None,
    largest_stack: int | None = None,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
    seconds_per_part: float = SECONDS_PER_PART,
) -> None:
    """Ablate units on samples of a split until the sets asked for are settled, and write the score table.

    Layers that cannot be removed are no rivals; they are scored on as many samples as the race takes. The manifest's
    entry gets the race's record under ``race``.

    Args:
        backbone: In evaluation mode, on the device to use.
        table: Where the scores go; its settings name the kind of unit and this race.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        settings: What to race for.
        classes: The class of every sample; those of few samples are warned of where they make the result unsure.
        ranks: The processes that share the work.
        largest_stack: The most variants of a batch to run as one.
        overwrite: Replace a table made with other settings.
        provenance: What else to record in the manifest.
        seconds_per_part: How long to collect scores before they are written.

    Raises:
        ValueError: If a table made with other settings is there and ``overwrite`` is false, a set is larger than the
            number of units, or the settings make no sense.
        RuntimeError: If another process failed.
    """
    ranks = ranks or Ranks()
    kind = table.settings.kind
    removable = {info.index for info in backbone.layers if info.removable}
    units = backbone.units(kind)
    rivals = sorted(unit for unit in units if not unit.is_layer or unit.layer in removable)
    others = [unit for unit in units if unit not in set(rivals)]
    race = Race(len(rivals), len(sample_ids), settings)
    # Only now: settings that are refused shall not have cost an earlier table.
    ranks.together(lambda: table.begin(overwrite), only_first=True)
    if ranks.together(table.is_finished):
        return
    if ranks.rank == 0:
        for warning in settings.warnings(classes):
            log.warning(warning)
    stored = _StoredScores(table.parts, rivals, sample_ids, settings.score)
    stack = StackSize(largest_stack)
    while True:
        # All read what all wrote before anyone adds to it, so that all decide alike.
        ranks.together(stored.refresh)
        race.replay(stored.scores, stored.left_out)
        if race.finished:
            break
        active = [rivals[place] for place in race.active] + others
        # A sample that could not be read stays left out: decisions were made without it.
        todo = [int(place) for place in race.look if not (stored.done | stored.left_out)[place]]
        mine = todo[ranks.rank :: ranks.world]
        title = f"Racing {len(race.active)} of {len(rivals)} {kind}"

        def compute(mine: list[int] = mine, active: list[Unit] = active, title: str = title) -> None:
            work = score_work(backbone, active, stack, table.settings.precision)
            work_through(table.parts, batches(mine), work, len(mine), ranks, title, seconds_per_part)

        ranks.together(compute)
    record = {**(provenance or {}), "race": race.record(rivals)}
    ranks.together(lambda: table.finish(sample_ids, record, every_sample=False), only_first=True)


class _StoredScores:
    """What the parts on disk hold, each read once.

    Attributes:
        scores: Of every rival on every sample, not a number where there is none, (U, N).
        done: Samples that were scored, (N,).
        left_out: Samples that could not be read, (N,).
    """

    def __init__(self, parts: PartStore, rivals: Sequence[Unit], sample_ids: Sequence[str], score: str) -> None:
        self.scores = np.full((len(rivals), len(sample_ids)), np.nan)
        self.done: NDArray[np.bool_] = np.zeros(len(sample_ids), dtype=bool)
        self.left_out: NDArray[np.bool_] = np.zeros(len(sample_ids), dtype=bool)
        self._parts = parts
        self._score = score
        self._place = {name: place for place, name in enumerate(sample_ids)}
        rows = [(unit.layer, unit.site, unit.head) for unit in rivals]
        self._rivals = pd.DataFrame(rows, columns=UNIT).assign(rival=range(len(rivals)))
        self._seen: set[Path] = set()

    def refresh(self) -> None:
        """Read the parts that are new."""
        for path in sorted(set(self._parts.files()) - self._seen):
            self._seen.add(path)
            part = self._parts.read_part(path)
            self.done[[self._place[name] for name in part.done]] = True
            self.left_out[[self._place[name] for name in part.left_out]] = True
            rows = pq.read_table(path, columns=["sample_id", *UNIT, self._score]).to_pandas()
            if rows.empty:
                continue
            rows = rows.assign(site=rows["site"].fillna(""), head=rows["head"].fillna(-1).astype(int))
            rows = rows.merge(self._rivals, on=UNIT)
            self.scores[rows["rival"], rows["sample_id"].map(self._place)] = rows[self._score]
        self.left_out &= ~self.done
