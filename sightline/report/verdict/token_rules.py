"""How many tokens can go, and whether it matters which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sightline.report.numbers import fixed, signed
from sightline.report.tables.tokens import ALL_TOKENS, CONTROL, WAY, averaged
from sightline.report.tables.tokens_layout import NOISE, way_label
from sightline.report.verdict.cut_rules import SMALL_LOSS, certainty
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Finding, Grade
from sightline.report.verdict.pairs import based_on, compared, listed, points
from sightline.statistics.paired_change import PairedChange


@dataclass(frozen=True)
class Reduced:
    """A token reduction that was tested at a share of the tokens.

    Attributes:
        row: Its row of the table, draws averaged.
        change: Of top-1 against all tokens, as a share; of several draws that of their mean.
        against_random: Against as many tokens dropped at random, likewise; None of random dropping itself, and where
            that was not tested.
    """

    row: Any
    change: PairedChange
    against_random: PairedChange | None

    @property
    def gone(self) -> str:
        """Which share of the tokens goes, and by which method, e.g. "30 % of the tokens (sta)"."""
        return f"{fixed(100 - self.row.kept_pct, 0)} % of the tokens ({way_label(self.row)})"

    @property
    def place(self) -> str:
        """Which share stays, e.g. "sta at 70 %"."""
        return f"{way_label(self.row)} at {self.row.kept_asked_pct:g} %"


def reductions(evidence: Evidence) -> list[Reduced]:
    """Return all token reductions that are known clip by clip beside the model with all tokens."""
    table, outcomes = evidence.tokens, evidence.token_outcomes
    if table is None:
        return []
    tested = table[table["plan_id"].isin(list(outcomes)) & table["top1"].notna()]
    full = [outcomes[plan] for plan in tested.loc[tested["method"] == ALL_TOKENS, "plan_id"]]
    plans = {
        way: [outcomes[plan] for plan in rows["plan_id"]]
        for way, rows in tested[tested["method"] != ALL_TOKENS].groupby(WAY, sort=False)
    }
    # Of several controls the first, as in the table.
    control = next((options for method, options, _ in plans if method == CONTROL), None)
    found = []
    for row in averaged(tested).itertuples(index=False):
        way: Any = tuple(getattr(row, name) for name in WAY)
        change = compared(plans[way], full) if full and way in plans else None
        if change is None:
            continue
        draws = plans.get((CONTROL, control, row.kept_asked_pct)) if row.method != CONTROL else None
        found.append(Reduced(row, change, compared(plans[way], draws) if draws else None))
    return found


def choose_reduction(found: list[Reduced]) -> Reduced | None:
    """Choose of those that lose little the one of fewest tokens, of equally few the most accurate; None without any."""
    small = [one for one in found if 100 * one.change.change >= -SMALL_LOSS]
    return min(small, key=lambda one: (one.row.kept_asked_pct, -one.change.change), default=None)


def fewer_tokens(evidence: Evidence) -> Finding | None:
    """Which share of the tokens can go, at what loss?"""
    name, found = "fewer_tokens", reductions(evidence)
    if not found:
        return None
    chosen = choose_reduction(found)
    if chosen is None:
        mildest = max(found, key=lambda one: one.change.change)
        how = "No tested share of tokens can" if mildest.change.below else "It is not clear that tokens can"
        told = f"{how} go without a loss: the mildest is {mildest.gone}, {points(mildest.change)}."
        return Finding(name, Grade.GOOD, told)
    told = f"{chosen.gone} can go: top-1 changes by {points(chosen.change)}, on {based_on(chosen.change)}."
    return Finding(name, Grade.GOOD, " ".join([told, certainty(chosen.change), *_cost(evidence, chosen)]))


def _cost(evidence: Evidence, chosen: Reduced) -> list[str]:
    """Say what a reduction saves; fewer tokens need not be faster, since choosing them takes time."""
    assert evidence.tokens is not None
    told = [f"It saves {fixed(-chosen.row.macs_change_pct, 1)} % of the multiply-adds."]
    full = evidence.tokens[evidence.tokens["method"] == ALL_TOKENS]
    speed = chosen.row.clips_per_s / full["clips_per_s"].iloc[0]
    if pd.notna(speed):
        batch = f"at batch {int(chosen.row.batch)}"
        told.append(
            f"It runs {fixed(speed, 1)} times as fast {batch}."
            if speed > 1
            else f"It is not faster here: {fixed(speed, 1)} times the clips/s of all tokens {batch}."
        )
    return told


def tokens_beat_random(evidence: Evidence) -> Finding | None:
    """Does choosing tokens keep more than dropping as many at random?"""
    name, found = "tokens_beat_random", reductions(evidence)
    chosen = [one for one in found if one.row.method != CONTROL]
    against = {one.place: one.against_random for one in chosen if one.against_random is not None}
    if not chosen:
        return None
    if not against:
        told = "Whether choosing tokens keeps more than dropping them at random is not known: that was not tested."
        command = evidence.command("tokens", "--methods", f"[{CONTROL}]")
        return Finding(name, Grade.UNKNOWN, told, "", "Test it:", command)
    better = {place: change for place, change in against.items() if change.above}
    by_chance = NOISE * len(against)
    if len(better) > by_chance:
        ahead = listed([f"{place} ({_short(change)})" for place, change in better.items()], 6)
        others = list(dict.fromkeys(way_label(one.row) for one in chosen if one.place not in better))
        never = [way for way in others if not any(one.place in better for one in chosen if way_label(one.row) == way)]
        told = f"Choosing tokens keeps more than dropping as many at random: {ahead}."
        told += f" Not shown at any share: {listed(never, 6)}." if never else ""
        return Finding(name, Grade.GOOD, told)
    nearest = max(against, key=lambda place: (against[place].above, against[place].low))
    what = f"{nearest}: {points(against[nearest])}"
    if better:
        clear = listed([f"{place}: {points(change)}" for place, change in better.items()], 6)
        chance = fixed(by_chance, 0)
        told = (
            f"That choosing tokens keeps more than dropping as many at random is not shown: of {len(against)} "
            f"comparisons only {clear}, and about {chance} {'is' if chance == '1' else 'are'} clear of 0 by chance."
        )
    else:
        told = f"No method is shown to keep more than as many tokens dropped at random; the nearest to it is {what}."
    advice = "Dropping at random is simpler and no dearer; more test clips would tell smaller differences apart."
    return Finding(name, Grade.CAUTION, told, "choosing tokens is not shown to beat dropping them at random", advice)


def _short(change: PairedChange) -> str:
    return f"{signed(100 * change.change, 1)} points, at least {signed(100 * change.low, 1)}"
