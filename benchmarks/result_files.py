"""Result files: what a benchmark found, with the command, versions, commit and machine behind it, for the pages.

A benchmark writes one with ``--results docs/results/NAME.json``; `benchmarks.write_results` puts its figures into the
pages. A file holds rows (records of one table), further tables under their names, and no name of a machine or user.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sightline.export.other_work import core_times, other_work, waited_pct
from sightline.run.atomic import write_json
from sightline.run.csv_table import read_table
from sightline.run.paths import RunFolder
from sightline.run.provenance import versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
NEEDED = ("command", "date", "commit", "versions", "machine", "rows")
Records = list[dict[str, Any]]


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--results`` to a benchmark's options."""
    parser.add_argument("--results", type=Path, metavar="FILE", help="also write the figures, for docs/results/")


def write_result(path: Path, rows: Records | pd.DataFrame, words: Sequence[str] | None = None, **tables: Any) -> None:
    """Write a result file.

    Args:
        path: The file.
        rows: Its main table.
        words: The benchmark's arguments; those of the process if not given. ``--results`` is left out of the command.
        tables: Further tables, or figures, by name.
    """
    script = Path(sys.argv[0]).name
    content = {
        "command": shlex.join(["python", f"benchmarks/{script}", *_without_results(words or sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "versions": versions(),
        "machine": _machine(),
        "rows": _plain(rows),
        **{name: _plain(table) for name, table in tables.items()},
    }
    write_json(path, content)
    if told := other_work(content["machine"]["waited_pct"], None):
        print(f"Measured beside other work: {told}. Times in {path} are not those of a quiet machine.", file=sys.stderr)


def read_result(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Read ``docs/results/NAME.json``.

    Raises:
        ValueError: If the file is missing or no result file.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"A page shows figures of {path}, which is not there. Run the command named beside them.")
    content = json.loads(path.read_text(encoding="utf-8"))
    if missing := [key for key in NEEDED if key not in content]:
        raise ValueError(f"{path} is no result file: it lacks {', '.join(missing)}. Write it with --results.")
    return content


def comparison_tables(folder: Path, runs: Sequence[Path]) -> dict[str, Records]:
    """Return what ``compare`` wrote to a folder: rows, differences, and which layers go with how stable they are.

    Args:
        folder: Where the tables are.
        runs: The runs that were compared; each says in which share of resamples its own scores give the same set.
    """
    tables = {name: read_table(folder / f"{name}.csv") for name in ("accuracy", "differences", "removed_layers")}
    found = [_stability(run) for run in runs]
    stable = pd.concat(found) if any(map(len, found)) else pd.DataFrame(columns=["backbone", "mode", "k", "same_set"])
    shares = stable.groupby(["backbone", "mode", "k"])["same_set"]
    layers = _plain(tables["removed_layers"])
    for row in layers:
        key = (row["backbone"], row["mode"], row["k"])
        own = shares.get_group(key) if row["method"] == "relevance" and key in shares.groups else None
        row["same_set_by_run"] = None if own is None else " | ".join(f"{100 * share:.0f}" for share in own)
    return {"rows": _plain(tables["accuracy"]), "differences": _plain(tables["differences"]), "layers": layers}


def _stability(run: Path) -> pd.DataFrame:
    path = RunFolder(run).table("stability_train_layers")
    if not path.is_file():
        return pd.DataFrame()
    table = read_table(path)
    table = table[table["score"] == "r"].drop_duplicates(["mode", "k"])
    rows = read_table(RunFolder(run).pruning_table, usecols=["backbone"])
    return table.assign(backbone=rows["backbone"].iloc[0])


def _plain(table: Any) -> Any:
    """Turn data frames into records, and values that are not finite into none, which JSON knows."""
    if isinstance(table, pd.DataFrame):
        table = table.to_dict("records")
    if isinstance(table, dict):
        return {key: _plain(value) for key, value in table.items()}
    if isinstance(table, list):
        return [_plain(value) for value in table]
    value = table.item() if hasattr(table, "item") else table
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_results(words: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and word != "--results" and not word.startswith("--results="):
            kept.append(word)
        skip = word == "--results"
    return kept


def _machine() -> dict[str, Any]:
    now = core_times()
    return {
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "waited_pct": waited_pct(dict.fromkeys(now, (0, 0)), now),
    }


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Pages and result files change with every benchmark, and change nothing in it.
        changed = git("status", "--porcelain", "--", ".", ":!docs", ":!README.md")
        return git("rev-parse", "--short=12", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no checkout
        return "unknown"
