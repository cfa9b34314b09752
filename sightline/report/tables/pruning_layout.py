"""The table of tested models laid out for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sightline.export.other_work import other_work
from sightline.report.tables.markdown import markdown_table
from sightline.report.tables.pruning import FORMAT, RELEVANCE_SCORES, RUNTIME, UNPRUNED
from sightline.statistics.few_subjects import caution


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
    # What a token reduction is called may be long.
    table.add_column("plan", no_wrap=bool((frame["tokens"] == "").all()), overflow="fold")
    table.add_column("mode", no_wrap=True)
    table.add_column("k", justify="right", no_wrap=True)
    table.add_column("removed", min_width=8, overflow="fold")
    for name in ("top-1 % (95 %)", "parameters", "multiply-adds", "clips/s (IQR)"):
        table.add_column(name, justify="right", no_wrap=True)
    marks = timing_marks(frame)
    notes = [note for note in (subjects_note(frame), *timing_notes(frame)) if note]
    table.caption, table.caption_justify = "\n".join(notes) or None, "left"
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
            table.add_row(
                *(Text(cell) for cell in (*cells, *costs, _timed(row, row.clips_per_s, row.clips_per_s_iqr, marks)))
            )
    return table


def pruning_table_markdown(frame: pd.DataFrame) -> str:
    """Lay the table out as GitHub-flavoured Markdown, with more columns than fit a terminal."""
    marks = timing_marks(frame)
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
        "tokens kept %": lambda row: _number(row.tokens_kept_pct),
        "ms at batch 1 (IQR)": lambda row: _timed(row, row.latency_ms_b1, row.latency_iqr_ms_b1, marks),
        _throughput(frame): lambda row: _timed(row, row.clips_per_s, row.clips_per_s_iqr, {}),
    }
    if frame["tokens_kept_pct"].isna().all():
        del columns["tokens kept %"]
    notes = [f"\n{note}\n" for note in (subjects_note(frame), *timing_notes(frame)) if note]
    return markdown_table(frame, columns, ("k", *list(columns)[5:])) + "".join(notes)


def _throughput(frame: pd.DataFrame) -> str:
    batches = frame["batch"].dropna().unique().tolist()
    return f"clips/s at batch {' or '.join(str(batch) for batch in batches)} (IQR)" if batches else "clips/s (IQR)"


def timing_marks(frame: pd.DataFrame) -> dict[str, str]:
    """Give each measurement that times in the table are of a mark, in order; none where all are of one."""
    timed = frame.loc[frame["clips_per_s"].notna() | frame["latency_ms_b1"].notna(), "timing_run"]
    runs = list(dict.fromkeys(timed))
    return {run: f"[{number}]" for number, run in enumerate(runs, 1)} if len(runs) > 1 else {}


def timing_notes(frame: pd.DataFrame, command: str = "prune") -> list[str]:
    """Say when times were measured, and what keeps them from being compared: several runs, other work beside them.

    Args:
        frame: The table.
        command: The command of ``train.py`` that measures its times again.
    """
    return [note for note in (_when(frame), _beside_other_work(frame, command)) if note]


def _beside_other_work(frame: pd.DataFrame, command: str) -> str:
    spread = (100 * frame["clips_per_s_iqr"] / frame["clips_per_s"]).max()
    single = (100 * frame["latency_iqr_ms_b1"] / frame["latency_ms_b1"]).max()
    waited = frame["timing_waited_pct"].max()
    largest = pd.Series([spread, single]).max()
    told = other_work(None if pd.isna(waited) else float(waited), None if pd.isna(largest) else float(largest))
    return f"Timed beside other work: {told}. `train.py {command}` times all rows again." if told else ""


def _when(frame: pd.DataFrame) -> str:
    told = [f"{mark} {run or 'by an earlier version'}" for run, mark in timing_marks(frame).items()]
    if told:
        return f"Times were measured in several runs; compare only those of one: {', '.join(told)}."
    runs = [run for run in frame.loc[frame["clips_per_s"].notna(), "timing_run"].unique() if run]
    return f"Times were measured {runs[0]}." if runs else ""


def subjects_note(frame: pd.DataFrame) -> str:
    """Say why the intervals are too narrow, where the test had few subjects; nothing else."""
    over_clips = frame.loc[(frame["interval_over"] == "clips") & frame["subjects"].notna(), "subjects"]
    told = caution(int(over_clips.min())) if len(over_clips) else ""
    return f"{told}." if told else ""


def plan_label(row: Any, name_score: bool = True) -> str:
    """Name the way of pruning of a row of the table."""
    seed = "" if pd.isna(row.seed) else f"#{row.seed}"
    parts = (row.method, row.score if name_score else "", seed) if row.k > 0 else ()
    cut = " ".join(part for part in parts if part) if row.mode != UNPRUNED else "unpruned"
    return " + ".join(part for part in (cut, *reduction_labels(row)) if part)


def reduction_labels(row: Any) -> list[str]:
    """Name what else than removed layers and heads tells a row's model from the reference."""
    told = [f"tokens {row.tokens}" if row.tokens else ""]
    told += [value for value, usual in ((row.format, FORMAT), (row.runtime, RUNTIME)) if value != usual]
    return [part for part in told if part]


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


def _timed(row: Any, value: Any, iqr: Any, marks: dict[str, str]) -> str:
    """Write a median, the interquartile range of its repeats in brackets, and the measurement's mark."""
    if pd.isna(value):
        return ""
    spread = "" if pd.isna(iqr) else f"({iqr:.1f})"
    return " ".join(part for part in (_number(value), spread, marks.get(row.timing_run, "")) if part)


def _number(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.1f}"
