"""The curves of a fit, on disk whatever other loggers there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from sightline.run.csv_table import read_rows, write_rows

KEYS = ("epoch", "step")


class CurvesLogger(Logger):
    """Writes losses and accuracies, one row per epoch, to a run's tables/curves.csv; a resumed fit continues it.

    Epochs count from 1. The file is whole after every epoch.
    """

    def __init__(self, path: Path, epochs: int = 0) -> None:
        """Set up the file.

        Args:
            path: The file.
            epochs: How many epochs training goes on after. Their rows are kept; later ones are trained again.
        """
        super().__init__()
        self.path = path
        self._rows: dict[tuple[int, int], dict[str, float | str]] = {}
        self._changed = False
        for row in read_rows(path) if epochs and path.is_file() else ():
            key = (int(row["epoch"]), int(row["step"]))
            if key[0] <= epochs:
                self._rows[key] = {name: value for name, value in row.items() if name not in KEYS and value != ""}

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Do nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of their epoch."""
        values = {key: value for key, value in metrics.items() if key not in KEYS}
        if not values:
            return
        key = (int(metrics.get("epoch", 0)), int(step or 0))
        self._rows.setdefault(key, {}).update(values)
        self._changed = True

    @rank_zero_only
    def save(self) -> None:
        """Write the file, if anything is new."""
        if not self._changed:
            return
        names = list(dict.fromkeys(name for row in self._rows.values() for name in row))
        rows = [[*key, *(row.get(name, "") for name in names)] for key, row in sorted(self._rows.items())]
        write_rows(self.path, [*KEYS, *names], rows)
        self._changed = False
