"""The table of tested models, `tables/pruning.csv`: one row per model, on disk and for the eye."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sightline.report.tables.markdown import markdown_table
from sightline.run.atomic import replacing

if TYPE_CHECKING:
    # At run time this would load torch, which writing a table does not need.
    from sightline.types import Unit


@dataclass(frozen=True, kw_only=True)
class PruningRow:
    """One tested model. What was not measured is None; accuracies and changes are in percent.

    Attributes:
        backbone: Registered name.
        plan_id: Name of the pruning plan, or of the run for the unpruned model.
        method: ``relevance``, ``greedy``, ``random``, ...; None for the unpruned model.
        score: What the ranking was made by; None for the unpruned model.
        mode: ``lowest``, ``highest``, ...; ``none`` for the unpruned model.
        k: Number of removed layers or heads.
        seed: Of random plans.
        removed_layers: Original indices.
        removed_heads: Heads of layers that remain.
        top1: Share of clips that are classified correctly.
        top1_low: Lower end of its interval, see `sightline.statistics.binomial`.
        top1_high: Upper end.
        mean_class_acc: Mean over classes of the share of their clips that are classified correctly.
        params: Number of parameters.
        params_change_pct: Against the unpruned model; negative where there are fewer.
        macs: Multiply-adds per clip.
        macs_change_pct: Against the unpruned model.
        latency_ms_b1: Milliseconds per clip at batch size 1.
        clips_per_s: Throughput at batch size ``batch``.
        batch: Batch size of ``clips_per_s``.
    """

    backbone: str
    plan_id: str
    method: str | None = None
    score: str | None = None
    mode: str = "none"
    k: int = 0
    seed: int | None = None
    removed_layers: tuple[int, ...] = ()
    removed_heads: tuple[Unit, ...] = ()
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    mean_class_acc: float | None = None
    params: int | None = None
    params_change_pct: float | None = None
    macs: int | None = None
    macs_change_pct: float | None = None
    latency_ms_b1: float | None = None
    clips_per_s: float | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if (self.mode == "none") != (self.k == 0) or (self.k == 0 and (self.removed_layers or self.removed_heads)):
            raise ValueError(
                "The unpruned model has mode 'none', k 0 and nothing removed, and every other model a mode and k > 0; "
                f"got mode {self.mode!r}, k {self.k}, removed layers {self.removed_layers}, "
                f"removed heads {self.removed_heads} for plan {self.plan_id!r}."
            )
        for name in ("top1", "top1_low", "top1_high", "mean_class_acc"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ValueError(f"{name} is in percent, between 0 and 100; got {value} for plan {self.plan_id!r}.")


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(PruningRow))
RELEVANCE_SCORES = ("r", "jsd", "dprob")
"""Of these one has to be told; every other method has a score of its own, and its name says enough."""
_TEXT = ("backbone", "plan_id", "method", "score", "mode", "removed_layers", "removed_heads")
_WHOLE = ("seed", "params", "macs", "batch")
_REAL = tuple(name for name in COLUMNS if name not in (*_TEXT, *_WHOLE, "k"))


def write_pruning_table(rows: Iterable[PruningRow], path: Path | str) -> None:
    """Write the table, in the order of ``rows``; an older file is replaced when the new one is whole."""
    with replacing(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_cell(getattr(row, name), name) for name in COLUMNS] for row in rows)


def read_pruning_table(path: Path | str) -> pd.DataFrame:
    """Read a table as written by `write_pruning_table`.

    Returns:
        Columns `COLUMNS`: text as str with "" for empty, ``k`` as int64, other counts as Int64 and measures as float64,
        both with missing values. `pruning_rows` gives the rows as objects.
    """
    types: dict[str, Any] = dict.fromkeys(_TEXT, "str") | dict.fromkeys(_WHOLE, "Int64") | {"k": "int64"}
    types |= dict.fromkeys(_REAL, "float64")
    with Path(path).open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ValueError(
            f"{path} is not a table of pruned models: it lacks the columns {', '.join(missing)}. "
            "Write it again with `train.py prune`."
        )
    # In text columns "" stays "", and a model may be called "None" or "nan".
    empty = {name: [""] for name in (*_WHOLE, *_REAL)}
    frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=empty, float_precision="round_trip")
    return frame[list(COLUMNS)]


def pruning_rows(frame: pd.DataFrame) -> list[PruningRow]:
    """Turn a table that was read back into rows, e.g. to add one and write the table again."""
    from sightline.types import Unit

    rows = []
    for record in frame[list(COLUMNS)].to_dict("records"):
        values: dict[str, Any] = {str(name): None if pd.isna(value) else value for name, value in record.items()}
        values |= {name: int(values[name]) for name in (*_WHOLE, "k") if values[name] is not None}
        values |= {name: values[name] or None for name in ("method", "score")}
        values["removed_layers"] = tuple(int(layer) for layer in values["removed_layers"].split())
        heads = (text.split(":") for text in values["removed_heads"].split())
        values["removed_heads"] = tuple(Unit(int(layer), site, int(head)) for layer, site, head in heads)
        rows.append(PruningRow(**values))
    return rows


def render_pruning_table(frame: pd.DataFrame, title: str = "Tested models") -> Table:
    """Lay the table out for a terminal of 100 columns or more; several backbones become sections."""
    backbones = list(dict.fromkeys(name for name in frame["backbone"] if name))
    scores = list(dict.fromkeys(name for name in frame["score"] if name in RELEVANCE_SCORES))
    title += f": {backbones[0]}" if len(backbones) == 1 else ""
    title += f", score {scores[0]}" if len(scores) == 1 else ""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for name in ("plan", "mode"):
        table.add_column(name, no_wrap=True)
    table.add_column("k", justify="right", no_wrap=True)
    table.add_column("removed", min_width=8, overflow="fold")
    for name in ("top-1 % (95 %)", "parameters", "multiply-adds", "clips/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for backbone, rows in frame.groupby("backbone", sort=False):
        if len(backbones) > 1:
            table.add_section()
            table.add_row(Text(str(backbone), style="bold"))
        for row in rows.itertuples(index=False):
            cells = (plan_label(row, len(scores) > 1), str(row.mode), str(row.k), removed_units(row), _accuracy(row))
            costs = (
                amount_and_change(row.params, row.params_change_pct),
                amount_and_change(row.macs, row.macs_change_pct),
            )
            table.add_row(*(Text(cell) for cell in (*cells, *costs, _number(row.clips_per_s))))
    return table


def pruning_table_markdown(frame: pd.DataFrame) -> str:
    """Lay the table out as GitHub-flavoured Markdown, with more columns than fit a terminal."""
    columns: dict[str, Callable[[Any], str]] = {
        "backbone": lambda row: row.backbone,
        "plan": plan_label,
        "mode": lambda row: row.mode,
        "k": lambda row: str(row.k),
        "removed": removed_units,
        "top-1 % (95 %)": _accuracy,
        "mean class %": lambda row: _number(row.mean_class_acc),
        "parameters": lambda row: amount_and_change(row.params, row.params_change_pct),
        "multiply-adds": lambda row: amount_and_change(row.macs, row.macs_change_pct),
        "ms at batch 1": lambda row: _number(row.latency_ms_b1),
        "clips/s (batch)": lambda row: _number(row.clips_per_s) + ("" if pd.isna(row.batch) else f" ({row.batch})"),
    }
    return markdown_table(frame, columns, ("k", *list(columns)[5:]))


def _cell(value: Any, name: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if name == "removed_layers":
        return " ".join(str(int(layer)) for layer in value)
    if name == "removed_heads":
        return " ".join(f"{unit.layer}:{unit.site}:{unit.head}" for unit in value)
    if name in (*_WHOLE, "k"):
        return str(int(value))
    return repr(float(value)) if name in _REAL else str(value)


def plan_label(row: Any, name_score: bool = True) -> str:
    """Name the way of pruning of a row of the table."""
    if row.mode == "none":
        return "unpruned"
    seed = "" if pd.isna(row.seed) else f"#{row.seed}"
    return " ".join(part for part in (row.method, row.score if name_score else "", seed) if part)


def removed_units(row: Any) -> str:
    """Say which layers and how many heads a row's model lacks."""
    heads = len(row.removed_heads.split())
    layers = _ranges([int(layer) for layer in row.removed_layers.split()])
    return ", ".join(part for part in (layers, f"{heads} heads" if heads else "") if part)


def _ranges(indices: list[int]) -> str:
    """Write 0 1 2 5 as "0-2 5"."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _accuracy(row: Any) -> str:
    interval = "" if pd.isna(row.top1_low) else f" ({row.top1_low:.1f}-{row.top1_high:.1f})"
    return "" if pd.isna(row.top1) else f"{row.top1:.1f}{interval}"


def amount_and_change(amount: Any, change: Any) -> str:
    """Write a count with its unit and its change in percent."""
    if pd.isna(amount):
        return ""
    power = max(power for power in range(5) if power == 0 or amount >= 1000**power)
    text = f"{amount / 1000**power:.{1 if power else 0}f} {' kMGT'[power]}".strip()
    return text if pd.isna(change) or change == 0 else f"{text} ({change:+.1f} %)"


def _number(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.1f}"
