"""The table of tested models, `tables/pruning.csv`: one row per model, as it stands on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sightline.run.csv_table import read_lines, read_table, write_rows

if TYPE_CHECKING:
    # At run time this would load torch, which writing a table does not need.
    from sightline.types import Unit

UNPRUNED = "none"
"""The mode of a model that the plan leaves as it is."""
FORMAT = "fp32"
RUNTIME = "pytorch"
"""What the reference model has; also what is read from a table that an older version wrote."""
REDUCTION = ("tokens", "format", "runtime")
"""The columns that tell how a model runs, beside what was removed from it."""


@dataclass(frozen=True, kw_only=True)
class PruningRow:
    """One tested model. What was not measured is None; accuracies and changes are in percent.

    Attributes:
        backbone: Registered name.
        plan_id: Name of the pruning plan, or of the run for the unpruned model.
        method: ``relevance``, ``greedy``, ``random``, ..., ``tokens``, ``format``; None for the unpruned model.
        score: What the ranking was made by; None for the unpruned model.
        mode: ``lowest``, ``highest``, ...; ``none`` where the plan changes nothing.
        k: Number of removed layers or heads.
        seed: Of random plans.
        removed_layers: Original indices.
        removed_heads: Heads of layers that remain.
        top1: Share of clips that are classified correctly.
        top1_low: Lower end of its interval, see `sightline.statistics.top1_interval`.
        top1_high: Upper end.
        mean_class_acc: Mean over classes of the share of their clips that are classified correctly.
        params: Number of parameters.
        params_change_pct: Against the unpruned model; negative where there are fewer.
        macs: Multiply-adds per clip.
        macs_change_pct: Against the unpruned model.
        latency_ms_b1: Milliseconds per clip at batch size 1.
        clips_per_s: Throughput at batch size ``batch``.
        batch: Batch size of ``clips_per_s``.
        tokens: Label of the token reduction that the model runs with; None for all tokens.
        tokens_kept_pct: Tokens that enter a layer against all tokens, mean over layers and clips.
        format: Number format: ``fp32``, ``bf16``, ``int8``.
        runtime: What runs the model.
        timing_run: Name of the measurement that latency and throughput are of: only rows of one can be compared.
        latency_iqr_ms_b1: Interquartile range of the repeats behind ``latency_ms_b1``.
        clips_per_s_iqr: Interquartile range of the repeats behind ``clips_per_s``.
        timing_waited_pct: Share of the measurement that went by waiting for a core, see `sightline.export.other_work`.
        subjects: Number of tested subjects; None where they are not known.
        interval_over: What the interval is over, ``subjects`` or ``clips``; None where an older version did not say,
            which always was clips.
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
    tokens: str | None = None
    tokens_kept_pct: float | None = None
    format: str = FORMAT
    runtime: str = RUNTIME
    timing_run: str | None = None
    latency_iqr_ms_b1: float | None = None
    clips_per_s_iqr: float | None = None
    timing_waited_pct: float | None = None
    subjects: int | None = None
    interval_over: str | None = None

    def __post_init__(self) -> None:
        removed = bool(self.removed_layers or self.removed_heads)
        changed = self.k > 0 or self.tokens is not None or self.format != FORMAT
        if (self.mode == "none") == changed or (self.k == 0 and removed):
            raise ValueError(
                "The unpruned model has mode 'none', k 0, nothing removed, no tokens and fp32; every other model has a "
                f"mode of its own and k > 0, tokens or another format. Got mode {self.mode!r}, k {self.k}, removed "
                f"layers {self.removed_layers}, removed heads {self.removed_heads}, tokens {self.tokens!r} and "
                f"{self.format} for plan {self.plan_id!r}."
            )
        for name in ("top1", "top1_low", "top1_high", "mean_class_acc", "tokens_kept_pct"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ValueError(f"{name} is in percent, between 0 and 100; got {value} for plan {self.plan_id!r}.")


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(PruningRow))
RELEVANCE_SCORES = ("r", "jsd", "dprob")
"""Of these, one has to be told; every other method has a score of its own, and its name says enough."""
METHODS = ("tokens", "format", "relevance", "greedy", "random", "block_influence", "gradient", "last")
"""Ways of making a model smaller, in the order of the tables."""
ADDED: dict[str, Any] = {
    "tokens": "", "tokens_kept_pct": math.nan, "format": FORMAT, "runtime": RUNTIME, "timing_run": "",
    "latency_iqr_ms_b1": math.nan, "clips_per_s_iqr": math.nan, "timing_waited_pct": math.nan,
    "subjects": pd.NA, "interval_over": "",
}  # fmt: skip
"""Columns that tables of older versions lack, and what is read where one is missing."""
_TEXT = (
    "backbone", "plan_id", "method", "score", "mode", "removed_layers", "removed_heads", "tokens", "format", "runtime",
    "timing_run", "interval_over",
)  # fmt: skip
_WHOLE = ("seed", "params", "macs", "batch", "subjects")
_REAL = tuple(name for name in COLUMNS if name not in (*_TEXT, *_WHOLE, "k"))


def write_pruning_table(rows: Iterable[PruningRow], path: Path | str) -> None:
    """Write the table, in the order of ``rows``; an older file is replaced when the new one is whole."""
    write_rows(Path(path), COLUMNS, ([_cell(getattr(row, name), name) for name in COLUMNS] for row in rows))


def read_pruning_table(path: Path | str) -> pd.DataFrame:
    """Read a table as written by `write_pruning_table`.

    Returns:
        Columns `COLUMNS`: text as str with "" for empty, ``k`` as int64, other counts as Int64 and measures as float64,
        both with missing values. Columns of `ADDED` that an older version did not write are filled in. `pruning_rows`
        gives the rows as objects.
    """
    types: dict[str, Any] = dict.fromkeys(_TEXT, "str") | dict.fromkeys(_WHOLE, "Int64") | {"k": "int64"}
    types |= dict.fromkeys(_REAL, "float64")
    with Path(path).open(newline="", encoding="utf-8") as file:
        header = next(iter(read_lines(file)), [])
    missing = [name for name in COLUMNS if name not in header and name not in ADDED]
    if missing:
        raise ValueError(
            f"{path} is not a table of pruned models: it lacks the columns {', '.join(missing)}. "
            "Write it again with `train.py prune`."
        )
    # In text columns "" stays "", and a model may be called "None" or "nan".
    empty = {name: [""] for name in (*_WHOLE, *_REAL)}
    frame = read_table(Path(path), dtype=types, keep_default_na=False, na_values=empty, float_precision="round_trip")
    for name, value in ADDED.items():
        if name not in frame:
            frame[name] = value
        elif name in ("format", "runtime"):
            frame[name] = frame[name].replace("", value)
    return frame.astype({name: types[name] for name in ADDED})[list(COLUMNS)]


def reference_rows(frame: pd.DataFrame) -> pd.Series:
    """Say of every row whether it is the reference: nothing removed, all tokens, fp32, run by PyTorch."""
    return (frame["mode"] == UNPRUNED) & (frame["runtime"] == RUNTIME)


def layers_and_heads_alone(frame: pd.DataFrame) -> pd.Series:
    """Say of every row whether it differs from the reference, if at all, in nothing but removed layers and heads."""
    return (frame["tokens"] == "") & (frame["format"] == FORMAT) & (frame["runtime"] == RUNTIME)


def in_order(rows: Iterable[PruningRow]) -> list[PruningRow]:
    """Sort rows as every table shows them, whenever each was measured.

    The reference comes first, then what lacks layers, then heads, then what runs with fewer tokens, in another format
    or on another runtime; within these by method, score, mode, number removed and seed. Scores and methods come in the
    order of their documentation (`METHODS`), others after them by name.
    """

    def place(row: PruningRow) -> tuple:
        changed = (row.tokens is not None, row.format != FORMAT, row.runtime != RUNTIME)
        method, score = row.method or "", row.score or ""
        return (
            row.backbone,
            row.mode != UNPRUNED or row.runtime != RUNTIME,
            changed,
            bool(row.removed_heads),
            (_rank(METHODS, method), method),
            (_rank(RELEVANCE_SCORES, score), score),
            (_rank(("lowest", "highest"), row.mode), row.mode),
            row.tokens or "",
            row.format,
            row.runtime,
            len(row.removed_layers),
            row.k,
            -1 if row.seed is None else row.seed,
            row.plan_id,
        )

    return sorted(rows, key=place)


def _rank(known: Sequence[str], name: str) -> int:
    return known.index(name) if name in known else len(known)


def pruning_rows(frame: pd.DataFrame) -> list[PruningRow]:
    """Turn a table that was read back into rows, e.g. to add one and write the table again."""
    from sightline.types import Unit

    rows = []
    for record in frame[list(COLUMNS)].to_dict("records"):
        values: dict[str, Any] = {str(name): None if pd.isna(value) else value for name, value in record.items()}
        values |= {name: int(values[name]) for name in (*_WHOLE, "k") if values[name] is not None}
        values |= {name: values[name] or None for name in ("method", "score", "tokens", "timing_run", "interval_over")}
        values["removed_layers"] = tuple(int(layer) for layer in values["removed_layers"].split())
        heads = (text.split(":") for text in values["removed_heads"].split())
        values["removed_heads"] = tuple(Unit(int(layer), site, int(head)) for layer, site, head in heads)
        rows.append(PruningRow(**values))
    return rows


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
