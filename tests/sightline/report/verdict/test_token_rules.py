"""How many tokens can go, and whether choosing them beats chance, on predictions made by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from sightline.export.token_tests import TokenTest
from sightline.report.tables.pruning import PruningRow
from sightline.report.tables.tokens import token_table
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Grade
from sightline.report.verdict.token_rules import choose_reduction, fewer_tokens, reductions, tokens_beat_random
from sightline.report.verdict.verdict import judge
from sightline.statistics.paired_change import paired_change
from sightline.tokens import TokenReduction
from tests.sightline.report.verdict.examples import CLIPS, SUBJECTS, predicted

RANKED = pd.DataFrame({"score": "r", "layer": [0, 1], "mean": [0.4, 0.1]})


def evidence_of(right: dict[tuple[str, float, int], range], speed: float = 2.0, **more) -> Evidence:
    """Evidence of 108 of 120 right with all tokens, and so many by method, share and draw of random dropping."""
    tests, predictions = [TokenTest()], {}
    for name, kept, seed in right:
        options = {"seed": seed} if name == "random" else {}
        amount = {"r": round(100 * kept)} if name == "sta" else {"kept": kept}
        method = TokenReduction.of(name, options)
        tests.append(TokenTest(method, kept, TokenReduction.of(name, options | amount), kept))
    for test, places in zip(tests, [range(108), *right.values()], strict=True):
        predictions[test.plan.plan_id] = predicted(places)
    rows = {
        test.plan.plan_id: PruningRow(
            backbone="demo", plan_id=test.plan.plan_id, mode="none" if test.method is None else "reduced",
            tokens=test.tokens and test.tokens.label, top1=1.0, macs=round(1000 * test.share),
            macs_change_pct=100 * (test.share - 1), batch=8, clips_per_s=10.0 if test.method is None else 10 * speed,
        )
        for test in tests
    }  # fmt: skip
    table = token_table(tests, rows, predictions)
    return Evidence(test=predictions[tests[0].plan.plan_id], tokens=table, token_outcomes=predictions, **more)


def test_differences_are_paired_and_draws_averaged():
    found = {one.place: one for one in reductions(evidence_of({
        ("random", 0.5, 0): range(60), ("random", 0.5, 1): range(30, 90), ("grid", 0.5, 0): range(90),
        ("grid", 0.2, 0): range(80),
    }))}  # fmt: skip
    assert list(found) == ["random at 50 %", "grid at 50 %", "grid at 20 %"]
    draws = [((i < 60) + (30 <= i < 90)) / 2 for i in range(CLIPS)]
    assert found["random at 50 %"].change == paired_change([d - (i < 108) for i, d in enumerate(draws)], SUBJECTS)
    assert found["grid at 50 %"].against_random == paired_change([(i < 90) - d for i, d in enumerate(draws)], SUBJECTS)
    assert found["random at 50 %"].against_random is None
    assert found["grid at 20 %"].against_random is None  # nothing was dropped at random there


def test_the_fewest_tokens_that_lose_little_are_proposed():
    found = evidence_of({
        ("random", 0.7, 0): range(108), ("grid", 0.7, 0): range(109), ("grid", 0.5, 0): range(107),
        ("sta", 0.5, 0): range(106), ("grid", 0.25, 0): range(90),
    })  # fmt: skip
    chosen = choose_reduction(reductions(found))
    assert chosen.place == "grid at 50 %"  # a clip of 120 less; two clips are 1.7 points
    finding = fewer_tokens(found)
    assert (finding.rule, finding.grade) == ("fewer_tokens", Grade.GOOD)
    assert finding.text.startswith("50 % of the tokens (grid) can go: top-1 changes by −0.8 points (95 %: ")
    assert "on 120 test clips of 12 subjects. A loss of up to" in finding.text
    assert finding.text.endswith("It saves 50.0 % of the multiply-adds. It runs 2.0 times as fast at batch 8.")


def test_what_is_not_faster_is_told_and_what_was_not_timed_is_not():
    one = {("grid", 0.5, 0): range(108)}
    slow, untimed = (fewer_tokens(evidence_of(one, speed=speed)).text for speed in (0.8, float("nan")))
    assert slow.endswith("It is not faster here: 0.8 times the clips/s of all tokens at batch 8.")
    assert untimed.endswith("of the multiply-adds.")


@pytest.mark.parametrize(
    ("right", "told"),
    [
        (60, "No tested share of tokens can go without a loss: the mildest is 50 % of the tokens (grid), −40.0 points"),
        (106, "It is not clear that tokens can go without a loss: the mildest is 50 % of the tokens (grid), −1.7"),
    ],
)
def test_where_all_lose_none_is_proposed(right, told):
    found = evidence_of({("grid", 0.5, 0): range(right), ("grid", 0.25, 0): range(50)})
    assert choose_reduction(reductions(found)) is None
    assert fewer_tokens(found).text.startswith(told)


def test_a_method_that_beats_random_is_named():
    found = tokens_beat_random(evidence_of({
        ("random", 0.5, 0): range(60), ("sta", 0.5, 0): range(100), ("grid", 0.5, 0): range(60),
    }))  # fmt: skip
    assert (found.rule, found.grade) == ("tokens_beat_random", Grade.GOOD)
    assert found.text.startswith(
        "Choosing tokens keeps more than dropping as many at random: sta at 50 % (+33.3 points, at least +"
    )
    assert found.text.endswith("Not shown at any share: grid.")


def test_where_nothing_beats_random_the_nearest_is_told():
    found = tokens_beat_random(evidence_of({
        ("random", 0.5, 0): range(60), ("sta", 0.5, 0): range(61), ("grid", 0.5, 0): range(40),
    }))  # fmt: skip
    assert found.grade == Grade.CAUTION
    assert "the nearest to it is sta at 50 %: +0.8 points (95 %: " in found.text
    assert found.reason
    assert found.advice


def test_one_of_many_comparisons_may_be_chance():
    shares = [round(0.95 - 0.04 * step, 2) for step in range(20)]
    right = {("random", kept, 0): range(60) for kept in shares} | {("grid", kept, 0): range(60) for kept in shares}
    found = tokens_beat_random(evidence_of(right | {("grid", shares[3], 0): range(100)}))
    assert found.grade == Grade.CAUTION
    assert "of 20 comparisons only grid at 83 %: +33.3 points" in found.text
    assert found.text.endswith("and about 1 is clear of 0 by chance.")
    two = tokens_beat_random(evidence_of(right | {("grid", kept, 0): range(100) for kept in shares[3:5]}))
    assert two.grade == Grade.GOOD
    # Of twice as many, two may be: both are named.
    more = {("temporal_difference", kept, 0): range(60) for kept in shares}
    both = tokens_beat_random(evidence_of(right | more | {("grid", kept, 0): range(100) for kept in shares[3:5]}))
    assert both.grade == Grade.CAUTION
    assert "of 40 comparisons only grid at 83 %: +33.3 points" in both.text
    assert " and grid at 79 %: +33.3 points" in both.text
    assert both.text.endswith("and about 2 are clear of 0 by chance.")
    assert "grid at 83 % (+33.3 points" in two.text
    assert "grid at 79 % (+33.3 points" in two.text


def test_without_the_control_or_without_a_method_nothing_is_compared():
    found = tokens_beat_random(evidence_of({("grid", 0.5, 0): range(60)}))
    assert (found.grade, found.command) == (Grade.UNKNOWN, "python train.py tokens --methods [random]")
    assert tokens_beat_random(evidence_of({("random", 0.5, 0): range(60)})) is None
    for rule in (fewer_tokens, tokens_beat_random):
        assert rule(Evidence()) is None


def test_tokens_that_can_go_are_part_of_the_verdict():
    found = judge(evidence_of({("random", 0.5, 0): range(60), ("grid", 0.5, 0): range(108)}, ranked=RANKED))
    assert found.headline == "No layer was cut yet; 50 % of the tokens (grid) can go."
    assert {"fewer_tokens", "tokens_beat_random"} <= {finding.rule for finding in found.findings}
    none = judge(evidence_of({("random", 0.5, 0): range(60), ("grid", 0.5, 0): range(61)}, ranked=RANKED))
    assert none.headline == "Nothing was cut yet."
    assert "choosing tokens is not shown to beat dropping them at random" in none.belief
