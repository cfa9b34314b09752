"""The table of token reductions laid out for a terminal and as Markdown, and what it says about the control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sightline.report.numbers import fixed, signed
from sightline.report.tables.markdown import markdown_table
from sightline.report.tables.pruning_layout import amount_and_change, subjects_note, timing_notes
from sightline.report.tables.tokens import ALL_TOKENS, CONTROL, averaged
from sightline.report.verdict.pairs import listed

NOISE = 0.05
"""Share of 95 % intervals that exclude no difference by chance."""


def render_token_table(frame: pd.DataFrame) -> Table:
    """Lay the table out for a terminal of 100 columns, draws averaged."""
    table = Table(
        title="Token reductions, no training" + (f": {frame['backbone'].iloc[0]}" if len(frame) else ""),
        title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
        pad_edge=False,
    )  # fmt: skip
    # What a method is called may be long.
    table.add_column("method", overflow="fold")
    batches = "/".join(str(batch) for batch in frame["batch"].dropna().unique()) or "n"
    for name in (
        "kept %", "top-1 % (95 %)", "against random\n(95 %)", "multiply-\nadds", "ms\nb1", f"clips/s\nb{batches}",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    table.caption, table.caption_justify = "\n".join(table_notes(frame)) or None, "left"
    last = ALL_TOKENS
    for row in averaged(frame).itertuples(index=False):
        if way_label(row) != last:
            table.add_section()
            last = way_label(row)
        change = amount_and_change(row.macs, None) if row.method == ALL_TOKENS else f"{row.macs_change_pct:+.1f} %"
        cells = (
            row_label(row), _number(row.kept_pct), accuracy_text(row), against_random(row), change,
            _number(row.latency_ms_b1), _number(row.clips_per_s),
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    return table


def token_table_markdown(frame: pd.DataFrame) -> str:
    """Lay the table out as GitHub-flavoured Markdown, draws averaged, with more columns than fit a terminal."""
    batches = " or ".join(str(batch) for batch in frame["batch"].dropna().unique()) or "n"
    columns: dict[str, Callable[[Any], str]] = {
        "method": row_label,
        "tokens kept % (asked)": lambda row: f"{_number(row.kept_pct)} ({row.kept_asked_pct:.0f})",
        "top-1 % (95 %)": accuracy_text,
        "mean class %": lambda row: _number(row.mean_class_acc),
        "against all tokens (95 %)": against_all,
        "against random (95 %)": against_random,
        "multiply-adds": lambda row: amount_and_change(row.macs, row.macs_change_pct),
        "ms at batch 1 (IQR)": lambda row: _spread(row.latency_ms_b1, row.latency_iqr_ms_b1),
        "clips/s at batch 1": lambda row: _number(row.clips_per_s_b1),
        f"clips/s at batch {batches} (IQR)": lambda row: _spread(row.clips_per_s, row.clips_per_s_iqr),
    }
    said = [*control_sentences(frame), *table_notes(frame)]
    return markdown_table(averaged(frame), columns, list(columns)[1:]) + "".join(f"\n{note}\n" for note in said)


def control_sentences(frame: pd.DataFrame) -> list[str]:
    """Say of every method whether it beats random dropping at the same share of kept tokens; nothing without a control.

    A difference counts where its 95 % interval excludes 0.
    """
    compared = averaged(frame)
    compared = compared[compared["vs_random"].notna()]
    told: list[str] = []
    for _, rows in compared.groupby(["method", "options"], sort=False):
        found: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
        row: Any
        for row in rows.itertuples(index=False):
            clear = row.vs_random_low > 0 or row.vs_random_high < 0
            way = "not told apart from" if not clear else "better than" if row.vs_random > 0 else "worse than"
            ends = f"{signed(row.vs_random_low, 1)} to {signed(row.vs_random_high, 1)}"
            by = f" ({signed(row.vs_random, 1)} points, 95 %: {ends})" if clear else ""
            found[way].append(f"{row.kept_asked_pct:g} %{by}")
        parts = [f"{way} random dropping at {listed(shares)}" for way, shares in found.items() if shares]
        told.append(f"{way_label(rows.iloc[0])}: {'; '.join(parts)}.")
    if told and len(compared) * NOISE >= 0.5:
        chance = max(1, round(len(compared) * NOISE))
        verb = "excludes" if chance == 1 else "exclude"
        told.append(f"Of {len(compared)} intervals of 95 %, about {chance} {verb} 0 by chance.")
    return told


def table_notes(frame: pd.DataFrame) -> list[str]:
    """Say what could not be tested, what averages are of, and what to know of intervals and times."""
    notes = []
    failed = frame[frame["top1"].isna()].drop_duplicates(["method", "options", "kept_asked_pct"])
    shares: dict[tuple[str, str], list[str]] = {}  # that a method cannot keep, by method and nearest share
    row: Any
    for row in failed.itertuples(index=False):
        shares.setdefault((way_label(row), f"{row.kept_pct:.1f}"), []).append(f"{row.kept_asked_pct:g} %")
    ways: dict[tuple[str, str], list[str]] = {}  # many methods lack the same shares
    for (way, nearest), unreached in shares.items():
        ways.setdefault((" or ".join(unreached), nearest), []).append(way)
    for (unreached_text, nearest), names in ways.items():
        notes.append(
            f"{', '.join(names)} cannot keep {unreached_text} of the tokens of this model: the nearest is {nearest} %. "
            "Not tested."
        )
    draws = averaged(frame)["draws"]
    if (draws > 1).any():
        notes.append(f"{CONTROL}: mean of {draws.max()} draws, in brackets the lowest and highest.")
    return [*notes, *(note for note in (subjects_note(frame), *timing_notes(frame, "tokens")) if note)]


def way_label(row: Any) -> str:
    """Name the method of a row, with its options."""
    return " ".join(part for part in (row.method, row.options) if part)


def row_label(row: Any) -> str:
    """Name the method of an averaged row, with its number of draws."""
    return way_label(row) + (f" ({row.draws} draws)" if row.draws > 1 else "")


def accuracy_text(row: Any) -> str:
    """Write top-1 with its interval; of several draws their mean, lowest and highest."""
    return f"{row.top1:.1f}" + ("" if pd.isna(row.low) else f" ({row.low:.1f}-{row.high:.1f})")


def against_random(row: Any) -> str:
    """Write the difference against the control with its interval; empty where there is none."""
    return _difference(row, "vs_random")


def against_all(row: Any) -> str:
    """Write the difference against the model with all tokens, likewise."""
    return _difference(row, "change")


def _difference(row: Any, name: str) -> str:
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if pd.isna(value):
        return ""
    # Of several draws, each has an interval of its own: of their mean there is none.
    ends = "" if row.draws > 1 else f" ({signed(low, 1)} to {signed(high, 1)})"
    return signed(value, 1) + ends


def _number(value: Any) -> str:
    return "" if pd.isna(value) else fixed(value, 1)


def _spread(value: Any, iqr: Any) -> str:
    return _number(value) + ("" if pd.isna(iqr) else f" ({iqr:.1f})")
