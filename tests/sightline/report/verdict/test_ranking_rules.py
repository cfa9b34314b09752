"""Whether relevance chooses well, and would choose the same again."""

import pandas as pd
import pytest

from sightline.report.tables.pruning import PruningRow
from sightline.report.verdict.cut_rules import proposals
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Grade
from sightline.report.verdict.ranking_rules import (
    beats_last,
    clear_gap,
    lowest_beats_highest,
    lowest_beats_random,
    same_set,
)
from tests.sightline.report.verdict.examples import evidence, plan, predicted

FULL = predicted(range(108))
LOWEST = {plan("lowest", 1): predicted(range(106)), plan("lowest", 2): predicted(range(100))}


def test_the_control_loses_more_at_every_depth(tmp_path):
    models = LOWEST | {plan("highest", 1): predicted(range(60)), plan("highest", 2): predicted(range(40))}
    found = lowest_beats_highest(evidence(tmp_path, FULL, models))
    assert found.grade == Grade.GOOD
    assert "+38.3 and +50.0 points at 1 and 2 layers (each clear of 0)" in found.text


@pytest.mark.parametrize(("first", "grade"), [(60, Grade.CAUTION), (105, Grade.BAD)])
def test_where_the_control_does_as_well_relevance_tells_nothing(tmp_path, first, grade):
    models = LOWEST | {plan("highest", 1): predicted(range(first)), plan("highest", 2): predicted(range(101))}
    found = lowest_beats_highest(evidence(tmp_path, FULL, models))
    assert found.grade == grade
    assert "−0.8 points at 1 and 2 layers (not clear at " in found.text


def test_without_the_control_nothing_is_known(tmp_path):
    found = lowest_beats_highest(evidence(tmp_path, FULL, LOWEST))
    assert (found.grade, found.command) == (Grade.UNKNOWN, "python train.py prune")
    assert lowest_beats_highest(Evidence()) is None


def test_random_draws_are_averaged_clip_by_clip(tmp_path):
    draws = [plan("lowest", 1, "random", seed=seed, plan_id=f"random-{seed}") for seed in (0, 1)]
    models = LOWEST | {draws[0]: predicted(range(46)), draws[1]: predicted(range(106))}
    found = lowest_beats_random(evidence(tmp_path, FULL, models))
    # Of 120 clips relevance keeps 60 and 0 more than the two draws: 25 points in the mean.
    assert found.grade == Grade.GOOD
    assert "random layers (mean of 2 draws): +25.0 points (95 %: " in found.text
    equal = lowest_beats_random(evidence(tmp_path, FULL, LOWEST | {draws[1]: predicted(range(106))}))
    assert equal.grade == Grade.CAUTION
    assert "one random draw: +0.0 points" in equal.text
    unknown = lowest_beats_random(evidence(tmp_path, FULL, LOWEST))
    assert unknown.grade == Grade.UNKNOWN
    assert "methods: [relevance, random, last]" in unknown.advice


def last(k: int, removed: tuple[int, ...]) -> PruningRow:
    return plan("lowest", k, "last", removed_layers=removed)


def test_last_is_told_where_it_does_as_well(tmp_path):
    assert beats_last(evidence(tmp_path, FULL, LOWEST)) is None
    worse = beats_last(evidence(tmp_path, FULL, LOWEST | {last(1, (5,)): predicted(range(50))}))
    assert worse.text.startswith("Relevance keeps more than cutting the last layers: +46.7 points")
    equal = beats_last(evidence(tmp_path, FULL, LOWEST | {last(1, (5,)): predicted(range(106))}))
    assert "which needs no scores, does as well: relevance keeps +0.0 points (95 %: " in equal.text


def test_the_same_layers_are_not_compared(tmp_path):
    one = {last(1, (0,)): predicted(range(106))}
    same = beats_last(evidence(tmp_path, FULL, LOWEST | one))
    assert same.text == (
        "Cutting the last layers, which needs no scores, does as well: at 1 layer they are the least relevant ones."
    )
    found = beats_last(evidence(tmp_path, FULL, LOWEST | one | {last(2, (4, 5)): predicted(range(50))}))
    assert found.text.startswith("Relevance keeps more than cutting the last layers: +41.7 points (95 %: ")
    assert found.text.endswith("at 2 layers. At 1 layer both remove the same ones.")
    # At the greatest depth the control is the same model, and says nothing of the relevance.
    both = plan("highest", 2, removed_layers=(0, 1))
    control = {plan("highest", 1): predicted(range(60)), both: predicted(range(100))}
    assert lowest_beats_highest(evidence(tmp_path, FULL, LOWEST | control)).grade == Grade.GOOD
    assert lowest_beats_highest(evidence(tmp_path, FULL, LOWEST | {both: predicted(range(100))})) is None


def stability(same: float, resampled: str = "groups") -> pd.DataFrame:
    rows = {"score": "r", "mode": "lowest", "k": 2, "same_set": same, "resampled": resampled, "layer": [0, 1, 2]}
    return pd.DataFrame({**rows, "chosen": [True, True, False], "share": [1.0, same, 1 - same]})


@pytest.mark.parametrize(
    ("same", "resampled", "grade", "words"),
    [
        (0.97, "groups", Grade.GOOD, "Resampled training subjects choose the same 2 layers in 97.0 %"),
        (0.6, "groups", Grade.CAUTION, "the least sure of them is replaced in 40 %"),
        (0.97, "samples", Grade.CAUTION, "Resampled training clips choose the same 2 layers in 97.0 %, which is too"),
    ],
)
def test_other_subjects_choose_the_same_or_not(tmp_path, same, resampled, grade, words):
    found = evidence(tmp_path, FULL, LOWEST, stability=stability(same, resampled))
    two = next(cut for cut in proposals(found) if cut.row.k == 2)
    told = same_set(found, two)
    assert told.grade == grade
    assert words in told.text
    assert same_set(found, None) is None  # nothing is known of a set of one


def test_of_a_race_its_promise_is_told():
    sure = {"method": "guaranteed", "confidence": 0.99, "tolerance": 0.0, "score": "r"}
    found = same_set(Evidence(race=sure), None)
    assert found.grade == Grade.UNKNOWN
    assert "guaranteed with a probability of at least 0.99. Whether other subjects" in found.text
    for race in ({"method": "approximate", "nominal_confidence": 0.99, "min_samples": 100}, {"confidence": 0.99}):
        found = same_set(Evidence(race=race), None)  # that of an earlier version names no method
        assert (found.grade, found.reason) == (Grade.CAUTION, "the ranking is of an approximate race")
        assert found.command == "python train.py ablate --sampling full --overwrite true"


def test_a_gap_of_rounding_is_told(tmp_path):
    gaps = pd.DataFrame(
        {"score": "r", "mode": "lowest", "k": [1, 2], "last_cut": ["layer 5", "layer 3"],
         "first_kept": ["layer 3", "layer 4"], "clear": [True, False]}
    )  # fmt: skip
    found = evidence(tmp_path, FULL, LOWEST, gaps=gaps)
    two, one = proposals(found)
    assert clear_gap(found, one) is None
    assert clear_gap(found, two).text == "Layer 3 (cut) and layer 4 (kept) differ by no more than rounding."
