"""Does any way of dropping tokens beat dropping at random? Every family, several seeds, without training for it.

    python benchmarks/token_methods.py --jobs 2                              # the synthetic cabin, two hours
    python benchmarks/token_methods.py --config configs/ucf101_small.yaml --out runs/tokens-ucf -- --data.root CLIPS

Every model is trained with all its tokens (settings of `reproduce_tables.SIZES`, the ViT with its two frames a token)
and then tested by `callbacks.TokenComparison` with each method at each share of kept tokens. Everything after ``--``
goes to train.py; finished runs are not run again. Differences are paired clip by clip over the runs of a family, with
95 % intervals over subjects; of random dropping each clip's mean over the draws counts. Three tables: at equal kept
tokens; at equal multiply-adds, where each clip's result lies on the straight line between the two tested amounts around
(what a random mix of both would give); and by how much moves in the clips.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.all_sets import data_of  # noqa: E402
from benchmarks.reproduce_tables import arguments_of, configuration, finish_all  # noqa: E402
from benchmarks.result_files import write_result  # noqa: E402
from sightline.report.tables.tokens import ALL_TOKENS, CONTROL, WAY, read_token_table  # noqa: E402
from sightline.report.verdict.pairs import right  # noqa: E402
from sightline.run.csv_table import read_table  # noqa: E402
from sightline.run.paths import RunFolder  # noqa: E402
from sightline.statistics.paired_change import paired_change  # noqa: E402

METHODS = ["sta", CONTROL, "grid", "temporal_difference", "attention", "rlt", "rlt:fixed=share", "tome"]
AT_PLACES, PLACED = f"{CONTROL}:at=places", f"{CONTROL} at=places"  # as it is asked for, as tables call it
KEPT = [0.9, 0.7, 0.5, 0.25]
DRAWS = 5
MACS = [0.9, 0.8, 0.7, 0.6, 0.5]
SLOW = "drowsy"  # the action of the cabin that is told by slow movements alone
Way = tuple[str, float]  # name of the method, share that it was asked to keep


@dataclass(frozen=True)
class Outcomes:
    """What the models of one backbone gave on all test clips of all runs; clips are indexed by run and name.

    Attributes:
        backbone: Registered name.
        clips: ``group`` (subject), ``action`` and ``moves`` of every clip.
        right: 1 or 0 of every clip, or the mean of the draws, by method and share; with all tokens ("all", 1.0).
        macs: Multiply-adds relative to all tokens, mean over runs and draws.
        kept: Share of tokens that was kept.
    """

    backbone: str
    clips: pd.DataFrame
    right: dict[Way, pd.Series]
    macs: dict[Way, float]
    kept: dict[Way, float]

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.right if method != ALL_TOKENS))

    def references(self, method: str, asked: float) -> dict[str, pd.Series | None]:
        """Return what a method's row is compared with: all tokens, and both controls at the same share."""
        ways = {"change": (ALL_TOKENS, 1.0), "vs_random": (CONTROL, asked), "vs_random_at_places": (PLACED, asked)}
        return {name: None if way == (method, asked) else self.right.get(way) for name, way in ways.items()}


def configure(args: argparse.Namespace, family: str, seed: int) -> dict[str, Any]:
    """Return the configuration of a run: trained as for the tables of pruning, then tested with fewer tokens."""
    config = configuration(args, family, seed)
    if family == "vit":  # four frames of tokens instead of two: the methods look from one to the next
        config["model"]["init_args"]["options"] = {}
    # In families of several stages, random dropping is at these places anyway.
    methods = METHODS + [AT_PLACES] * (family in ("vit", "timesformer"))
    compare = {"methods": methods, "kept": KEPT, "draws": DRAWS, "latency_repeats": 0}
    config["trainer"]["callbacks"] = [{"class_path": "callbacks.TokenComparison", "init_args": compare}]
    return config


def movement(run: Path) -> pd.Series:
    """Return how much the pixels of every test clip change from frame to frame, in grey levels, by name."""
    data = data_of(run)
    found: dict[str, float] = {}
    for batch in data.evaluation_loader(data.clips("test")):
        if batch["sample_id"]:
            moves = batch["clip"].float().diff(dim=2).abs().mean(dim=(1, 2, 3, 4))
            found |= dict(zip(batch["sample_id"], moves.tolist(), strict=True))
    return pd.Series(found)


def read_run(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a run's table of token reductions, and of every test clip what became of it with each, and what it is."""
    folder, data = RunFolder(run), data_of(run)
    table = read_token_table(folder.table("tokens"))
    table = table[table["top1"].notna()]
    text = {"sample_id": str, "group": str}
    first = read_table(folder.token_predictions / f"{table['plan_id'].iloc[0]}.csv", dtype=text, keep_default_na=False)
    clips = first.set_index("sample_id")[["group", "label"]]
    clips["action"] = [data.class_names[label] for label in clips.pop("label")]
    clips["moves"] = movement(run)
    for plan_id in table["plan_id"].unique():
        path = folder.token_predictions / f"{plan_id}.csv"
        clips[plan_id] = right(read_table(path, dtype=text, keep_default_na=False))
    return table, clips


def gather(runs: Sequence[Path]) -> Outcomes:
    """Put the runs of one backbone together; what one of them could not test is left out."""
    read = [read_run(run) for run in runs]
    clips = pd.concat([clips for _, clips in read], keys=range(len(read)), names=["run", "sample_id"])
    by_way: dict[Way, list[tuple[pd.Series, float, float]]] = {}
    for number, (table, own) in enumerate(read):
        full = float(table.loc[table["method"] == ALL_TOKENS, "macs"].to_numpy()[0])
        for key, rows in table.groupby(WAY, sort=False):
            method, options, asked = cast(tuple[str, str, float], key)
            outcome = own[rows["plan_id"].tolist()].mean(axis=1)
            outcome.index = pd.MultiIndex.from_product([[number], outcome.index], names=["run", "sample_id"])
            way = (f"{method} {options}".strip(), asked / 100)
            by_way.setdefault(way, []).append((outcome, (rows["macs"] / full).mean(), rows["kept_pct"].mean() / 100))
    by_way = {way: found for way, found in by_way.items() if len(found) == len(runs)}
    return Outcomes(
        read[0][0]["backbone"].iloc[0],
        clips[["group", "action", "moves"]],
        {way: pd.concat([outcome for outcome, _, _ in found]) for way, found in by_way.items()},
        {way: float(np.mean([macs for _, macs, _ in found])) for way, found in by_way.items()},
        {way: float(np.mean([kept for _, _, kept in found])) for way, found in by_way.items()},
    )


def row_of(outcomes: Outcomes, outcome: pd.Series, others: dict[str, pd.Series | None]) -> dict[str, Any]:
    """Return accuracy by run; the difference from others in points, its interval, and how many runs are ahead."""
    by_run = 100 * outcome.groupby("run", sort=True).mean()
    row: dict[str, Any] = {
        "top1": by_run.mean(),
        "top1_sd": by_run.std(),
        "top1_by_run": " ".join(f"{value:.1f}" for value in by_run),
        "clips": len(outcome),
    }
    for name, other in others.items():
        ends: dict[str, Any] = dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_runs_ahead"))
        if other is not None:
            difference = outcome - other
            found = paired_change(difference.to_numpy(), outcomes.clips.loc[outcome.index, "group"].to_numpy())
            ahead = int((difference.groupby("run").mean() > 0).sum())
            ends = dict(zip(ends, (*(100 * v for v in (found.change, found.low, found.high)), ahead), strict=True))
        row |= ends
    return row


def at_equal_kept(outcomes: Outcomes) -> Iterator[dict[str, Any]]:
    """Yield a row per method and share of kept tokens."""
    for (method, asked), outcome in outcomes.right.items():
        yield {
            "backbone": outcomes.backbone,
            "method": method,
            "kept_asked_pct": 100 * asked,
            "kept_pct": 100 * outcomes.kept[method, asked],
            "macs_pct": 100 * outcomes.macs[method, asked],
            **row_of(outcomes, outcome, outcomes.references(method, asked)),
        }


def between(outcomes: Outcomes, method: str, macs: float) -> pd.Series | None:
    """Return what a method gives at a share of multiply-adds; None where its cheapest test costs more."""
    ways = [way for way in outcomes.right if way[0] in (method, ALL_TOKENS)]
    ways.sort(key=lambda way: outcomes.macs[way])
    above = next((place for place, way in enumerate(ways) if outcomes.macs[way] >= macs), None)
    if above is None or (above == 0 and outcomes.macs[ways[0]] > macs):
        return None
    if above == 0:
        return outcomes.right[ways[0]]
    low, high = ways[above - 1], ways[above]
    weight = (macs - outcomes.macs[low]) / (outcomes.macs[high] - outcomes.macs[low])
    return (1 - weight) * outcomes.right[low] + weight * outcomes.right[high]


def at_equal_macs(outcomes: Outcomes) -> Iterator[dict[str, Any]]:
    """Yield a row per method and share of multiply-adds."""
    full = outcomes.right[ALL_TOKENS, 1.0]
    for macs in MACS:
        found = {method: between(outcomes, method, macs) for method in outcomes.methods}
        for method, outcome in found.items():
            if outcome is not None:
                others = {"change": full, "vs_random": None if method == CONTROL else found.get(CONTROL)}
                yield {
                    "backbone": outcomes.backbone,
                    "method": method,
                    "macs_pct": 100 * macs,
                    **row_of(outcomes, outcome, others),
                }


def by_movement(outcomes: Outcomes) -> Iterator[dict[str, Any]]:
    """Yield a row per method, share and kind of clip: the third that moves least or most, and those of `SLOW`."""
    moves = outcomes.clips["moves"]
    low, high = np.quantile(moves, [1 / 3, 2 / 3])
    kinds = {"still": moves <= low, "fast": moves > high, SLOW: outcomes.clips["action"] == SLOW}
    for kind, chosen in kinds.items():
        if not chosen.any():
            continue
        told = {"kind": kind, "moves_from": moves[chosen].min(), "moves_to": moves[chosen].max()}
        for (method, asked), outcome in outcomes.right.items():
            others = outcomes.references(method, asked)
            of_kind = {name: None if other is None else other[chosen] for name, other in others.items()}
            row = row_of(outcomes, outcome[chosen], of_kind)
            yield {"backbone": outcomes.backbone, **told, "method": method, "kept_asked_pct": 100 * asked, **row}


def main(words: list[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    args = arguments_of(words, __doc__, "tokens")
    runs = finish_all(args, lambda family, seed: configure(args, family, seed), "tokens_by_subject")
    every = [gather([run for run in runs if run.parent.name == family]) for family in args.families]
    tables = {
        name: pd.DataFrame([row for outcomes in every for row in rows(outcomes)])
        for name, rows in (("rows", at_equal_kept), ("by_macs", at_equal_macs), ("by_movement", by_movement))
    }
    for name, table in tables.items():
        table.to_csv(args.out / f"{name}.csv", index=False)
    shown = ["backbone", "method", "kept_asked_pct", "macs_pct", "top1", "change", "vs_random", "vs_random_low",
             "vs_random_high"]  # fmt: skip
    print(tables["rows"][shown].round(1).to_string(index=False))
    if args.results is not None:
        write_result(args.results, tables.pop("rows"), words, seeds=args.seeds, **tables)


if __name__ == "__main__":
    main()
