"""The tables of `sightline.report.comparison.tables` as one page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sightline.export.other_work import other_work
from sightline.report.tables.markdown import markdown_table
from sightline.report.tables.pruning import RELEVANCE_SCORES, UNPRUNED
from sightline.report.tables.pruning_layout import amount_and_change, reduction_labels


def comparison_markdown(tables: Mapping[str, pd.DataFrame], runs: list[str]) -> str:
    """Lay out the tables, with what their numbers mean.

    Args:
        tables: ``methods``, ``differences``, ``accuracy``, ``removed_layers`` and ``scores``: see the functions that
            make them in `sightline.report.comparison.tables` and `sightline.report.comparison.intervals`.
        runs: Names of the runs, in the order in which their values are listed.
    """
    accuracy = tables["accuracy"]
    parts = [
        "## Methods side by side",
        "Top-1 on the test clips in percent at every number k of removed layers, mean ± standard deviation over runs. "
        "The best method of a row is in bold.",
        _methods(tables["methods"]),
        *_differences(tables["differences"]),
        "## Accuracy and cost",
        f"Mean ± standard deviation over runs, then every run ({', '.join(runs)}). Accuracies in percent, changes of "
        "accuracy in points; speed is clips per second against the unpruned model of the same run, in brackets the "
        "interquartile range of the repeats." + _about_intervals(accuracy) + _about_speed(accuracy),
        _accuracy(accuracy),
    ]
    if len(tables["removed_layers"]):
        parts += [
            "## Removed layers",
            "Agreement: the mean Jaccard index of two runs' sets. Layer:n says that n runs removed the layer.",
            _removed(tables["removed_layers"]),
        ]
    if len(tables["scores"]):
        parts += [
            "## Scores compared",
            "Top-1 of one-shot pruning by each score; agreement with the set of the first score in the same run.",
            _scores(tables["scores"]),
        ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _about_intervals(accuracy: pd.DataFrame) -> str:
    if accuracy["top1_low"].notna().any():
        return " In brackets: 95 % intervals over the test subjects of all runs."
    return " No intervals: too few test subjects; see by_subject.csv."


def _about_speed(accuracy: pd.DataFrame) -> str:
    waited, spread = accuracy["timing_waited_pct"].max(), (100 * accuracy["speedup_iqr"] / accuracy["speedup"]).max()
    told = other_work(*(None if pd.isna(value) else float(value) for value in (waited, spread)))
    return f" Timed beside other work: {told}. `train.py prune` times a run's models again." if told else ""


def _methods(table: pd.DataFrame) -> str:
    names = [name for name in table.columns[2:] if not name.endswith(" sd")]
    lines = [["backbone", "k", *names], ["---", "---:", *["---:"] * len(names)]]
    for row in table.to_dict("records"):
        best = max((row[name] for name in names if not pd.isna(row[name])), default=None)
        cells = ["" if pd.isna(row[name]) else spread(row[name], row[f"{name} sd"]) for name in names]
        marked = [
            f"**{cell}**" if row["k"] and row[name] == best else cell for name, cell in zip(names, cells, strict=True)
        ]
        lines.append([row["backbone"], str(row["k"]), *marked])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _differences(table: pd.DataFrame) -> list[str]:
    """Lay out one row per depth, and one column for the control and for each other method; nothing without any."""
    control = (table["other_method"] == "relevance") & (table["other_score"] == table["score"])
    baseline = (table["other_method"] != "relevance") & (table["other_mode"] == "lowest")
    table = table[control | baseline]
    if not len(table):
        return []
    score = table["score"].iloc[0]
    name = table["other_method"].where(~control, "highest " + score).str.replace("_", " ")
    said = zip(*(table[column].tolist() for column in ("difference", "low", "high", "runs_ahead", "runs")), strict=True)
    cell = [f"{signed(value)}{_interval(low, high)}; {ahead} of {runs}" for value, low, high, ahead, runs in said]
    key = ["backbone", "k"]
    wide = table.assign(name=name, cell=cell).pivot(index=key, columns="name", values="cell")
    wide = wide.reindex(pd.MultiIndex.from_frame(table[key].drop_duplicates()))[list(dict.fromkeys(name))]
    columns = {column: lambda row, place=place: row[place] for place, column in enumerate([*key, *wide.columns])}
    return [
        f"## Lowest {score} against the others",
        f"Points of top-1 by which removing the layers of lowest {score} keeps more than the other way at the same k "
        "(with a minus: less), with a 95 % interval over test subjects where there are 8 of them; then the "
        "number of runs in which it keeps more.",
        markdown_table(wide.fillna("").reset_index().astype(str), columns, list(columns)[1:]),
    ]


def _accuracy(table: pd.DataFrame) -> str:
    columns = {
        "backbone": lambda row: row.backbone,
        "method": method_name,
        "mode": lambda row: "" if row.mode == UNPRUNED else row.mode,
        "k": lambda row: str(row.k),
        "top-1": lambda row: spread(row.top1, row.top1_sd) + _interval(row.top1_low, row.top1_high),
        "runs": lambda row: row.top1_by_run,
        "change": lambda row: (
            "" if row.mode == UNPRUNED else signed(row.change) + _interval(row.change_low, row.change_high)
        ),
        "mean class": lambda row: spread(row.mean_class_acc, row.mean_class_acc_sd),
        "parameters": lambda row: amount_and_change(row.params, row.params_change_pct),
        "multiply-adds": lambda row: amount_and_change(row.macs, row.macs_change_pct),
        "speed": _speed,
        "lose most": lambda row: row.classes_that_lose_most,
    }
    return markdown_table(table, columns, ["k", "top-1", "change", "mean class", *list(columns)[8:11]])


def _removed(table: pd.DataFrame) -> str:
    columns = {
        "backbone": lambda row: row.backbone,
        "method": method_name,
        "mode": lambda row: row.mode,
        "k": lambda row: str(row.k),
        "removed in each run": lambda row: row.removed_by_run.replace(" | ", "; "),
        "agreement": lambda row: "" if pd.isna(row.agreement) else f"{row.agreement:.2f}",
        "layer:runs": lambda row: row.removed_in,
    }
    return markdown_table(table, columns, ["k", "agreement"])


def _scores(table: pd.DataFrame) -> str:
    used = [score for score in RELEVANCE_SCORES if f"top1_{score}" in table]
    columns: dict[str, Any] = {
        "backbone": lambda row: row.backbone,
        "mode": lambda row: row.mode,
        "k": lambda row: str(row.k),
    }
    for score in used:
        mean, sd = f"top1_{score}", f"top1_{score}_sd"
        columns[score] = lambda row, mean=mean, sd=sd: spread(getattr(row, mean), getattr(row, sd))
    for score in used[1:]:
        name = f"agreement_{score}_{used[0]}"
        columns[f"{score} as {used[0]}"] = lambda row, name=name: f"{getattr(row, name):.2f}"
    return markdown_table(table, columns, list(columns)[2:])


def _speed(row: Any) -> str:
    spread = "" if pd.isna(row.speedup_iqr) else f" ({row.speedup_iqr:.2f})"
    return "" if pd.isna(row.speedup) else f"{row.speedup:.2f}x{spread}"


def method_name(row: Any) -> str:
    """Return what a way of pruning is called: a baseline by its method, relevance with its score, then how it runs."""
    extra = reduction_labels(row)
    if row.mode == UNPRUNED:
        named = "unpruned"
    elif row.k == 0:
        named = ""
    else:
        named = row.method.replace("_", " ") + (f" {row.score}" if row.score in RELEVANCE_SCORES else "")
    return " + ".join(part for part in (named, *extra) if part)


def spread(mean: float, sd: float) -> str:
    """Write a mean with its standard deviation, which a single run lacks."""
    return f"{mean:.1f}" + ("" if pd.isna(sd) else f" ± {sd:.1f}")


def signed(value: float) -> str:
    """Write a change in points."""
    return "" if pd.isna(value) else f"{value:+.1f}"


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f" ({low:.1f} to {high:.1f})"
