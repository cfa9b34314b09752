"""Reading a run's folder for the report: every result is there or not, and what is there has to be of this version."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sightline.relevance.table import FORMAT_VERSION, read_manifest
from sightline.report.tables.pruning import read_pruning_table, reference_rows
from sightline.report.tables.tokens import read_token_table
from sightline.run.csv_table import read_table
from sightline.run.folder import is_run_folder
from sightline.run.paths import DESCRIPTION, RunFolder
from sightline.run.provenance import read_provenance

ENTRY = ("samples", "left_out", "noise_floor", "class_names", "weights_sha256", "data_sha256")
"""What a manifest says of every score table."""
SPLITS = ("train", "val", "test")


class RunResults:
    """A run's folder.

    Attributes:
        folder: Where it is.
        paths: Where everything lies in it.
        config: Its ``config.yaml``.
        provenance: Its ``provenance.json``; None where it has none.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no run's, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, RunFolder(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}. Pass --run with a run's folder, e.g. runs/demo.")
        if not is_run_folder(folder):
            raise ValueError(f"{folder} is not a run's folder: it has no config.yaml. Train one with train.py fit.")
        self.config = self._config()
        run = self.paths
        results = (run.splits, run.checkpoints, run.tables, run.relevance_folder, run.pruned_folder)
        if not any(path.exists() for path in results):
            names = ", ".join(path.name for path in results)
            raise ValueError(
                f"{folder} holds a configuration, but none of a run's results ({names}). Name a run's "
                "folder, as train.py fit makes it."
            )
        self.provenance = read_provenance(folder)

    def command(self, name: str, *options: str) -> str:
        """Return the command line that runs a command of `train.py` on this run; a fit trains a new run like it."""
        if name == "fit":
            return " ".join(["python train.py fit --config", shlex.quote(str(self.paths.config)), *options])
        return " ".join(["python train.py", name, "--run", shlex.quote(str(self.folder)), *options])

    def table(self, name: str, columns: Sequence[str], command: str) -> pd.DataFrame | None:
        """Read ``tables/<name>.csv``; None where there is none or it is empty.

        Args:
            name: File name without folder and suffix.
            columns: What it must have.
            command: The command of `train.py` that writes it.

        Raises:
            ValueError: If it lacks columns, as tables of other versions do.
        """
        path = self.paths.table(name)
        if not path.is_file():
            return None
        try:
            frame = read_table(path, keep_default_na=False, na_values=[""])
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} is not a table ({error}). Write it again with: {self.command(command)}"
            ) from error
        missing = [column for column in columns if column not in frame.columns]
        if missing:
            raise ValueError(
                f"{path} lacks the columns {', '.join(missing)}; another version of Sightline wrote it. "
                f"Write it again with: {self.command(command)}"
            )
        return None if frame.empty else frame

    def names(self, pattern: str) -> list[str]:
        """Return the names, without suffix, of the tables that match ``pattern``, sorted."""
        return sorted(path.stem for path in self.paths.tables.glob(f"{pattern}.csv"))

    def pruning(self) -> pd.DataFrame | None:
        """Read the table of tested models."""
        path = self.paths.pruning_table
        return read_pruning_table(path) if path.is_file() else None

    def tokens(self) -> pd.DataFrame | None:
        """Read the table of token reductions."""
        path = self.paths.table("tokens")
        return read_token_table(path) if path.is_file() else None

    def predictions(self) -> pd.DataFrame | None:
        """Read the unpruned model's predictions on the test clips, as the table of tested models rests on."""
        table = self.pruning()
        plans = [] if table is None else table.loc[reference_rows(table), "plan_id"].tolist()
        path = self.paths.predictions(plans[0] if plans else "")
        return read_table(path) if path.is_file() else None

    def scored_splits(self) -> list[str]:
        """Return the splits that have score tables, the training clips' first."""
        found = {split for split in self.paths.scored_splits() if self.manifest(split)}
        return [split for split in SPLITS if split in found] + sorted(found - set(SPLITS))

    def manifest(self, split: str) -> dict[str, Any]:
        """Return what the manifest says of the score tables of a split, by kind of unit."""
        path = self.paths.relevance(split).path
        again = self.command("ablate", "--split", split, "--overwrite", "true")
        try:
            tables = dict(read_manifest(path)["tables"])
            formats = {kind: entry["format_version"] for kind, entry in tables.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.paths.relevance(split).manifest} is damaged ({error!r}). Delete the folder {path} and score "
                f"again: {again}"
            ) from error
        for kind, found in formats.items():
            lacking = [key for key in ENTRY if key not in tables[kind]]
            if found != FORMAT_VERSION or lacking:
                raise ValueError(
                    f"The scores of {kind} in {path} have format {found}; this version reads format {FORMAT_VERSION}"
                    f"{', which also tells ' + ', '.join(lacking) if lacking else ''}. Score again: {again}"
                )
        return tables

    def class_names(self) -> list[str] | None:
        """Return the class names in the model's order, from whatever result knows them."""
        for split in self.scored_splits():
            for entry in self.manifest(split).values():
                return list(map(str, entry["class_names"]))
        for path in sorted(self.paths.pruned_folder.glob(f"*/{DESCRIPTION}")):
            return list(map(str, json.loads(path.read_text(encoding="utf-8"))["classes"])) or None
        counts = self.table("split", ("split", "label", "clips", "groups"), "fit")
        return None if counts is None else list(map(str, dict.fromkeys(counts["label"])))

    def setting(self, *path: str) -> Any:
        """Look up a value of the configuration, e.g. ``setting("model", "init_args", "backbone")``; None if unset."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _config(self) -> dict[str, Any]:
        path = self.paths.config
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())}). Restore it.") from error
        if not isinstance(config, dict) or not {"model", "data", "trainer"} <= set(config):
            raise ValueError(
                f"{path} is not a configuration of Sightline: it lacks model, data or trainer. Wrong folder?"
            )
        return config
