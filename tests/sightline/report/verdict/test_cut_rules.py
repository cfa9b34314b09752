"""Which cut is proposed, at what loss."""

import dataclasses

import pytest

from sightline.report.verdict.cut_rules import choose_cut, class_lost, cut_loss, deeper, named, proposals, saved
from tests.sightline.report.verdict.examples import evidence, plan, predicted

FULL = predicted(range(108))


def test_the_cheapest_cut_that_loses_little_is_proposed(tmp_path):
    models = {
        plan("lowest", 1): predicted(range(110)),
        plan("lowest", 2): predicted(range(107)),  # a clip of 120 less: 0.8 points
        plan("lowest", 3): predicted(range(106)),  # 1.7 points
        plan("highest", 4): predicted(range(120)),  # a control, however good
        plan("lowest", 5, "random", seed=0): predicted(range(120)),
    }
    found = evidence(tmp_path, FULL, models)
    cuts = proposals(found)
    assert [cut.row.k for cut in cuts] == [3, 2, 1]  # those of fewest multiply-adds first
    cut = choose_cut(cuts)
    assert (cut.row.k, cut.by_target) == (2, False)
    told = cut_loss(found, cut)
    assert told.startswith("Top-1 goes from 90.0 to 89.2 %: −0.8 points (95 %: ")
    assert "on 120 test clips of 12 subjects. A loss of up to" in told
    assert saved(cut.row) == "It saves 20.0 % of the parameters and 10.0 % of the multiply-adds."
    assert deeper(cut, cuts).startswith("The next deeper one, 3 layers (layers 0, 1, 2), changes it by −1.7 points")
    assert deeper(cuts[0], cuts) == ""


def test_what_met_a_target_goes_first(tmp_path):
    models = {plan("lowest", 1): predicted(range(100)), plan("lowest", 2): predicted(range(108))}
    found = evidence(tmp_path, FULL, models, target="relevance-lowest-k1")
    cut = choose_cut(proposals(found))
    assert (cut.row.k, cut.by_target) == (1, True)


def test_where_every_cut_loses_none_is_proposed(tmp_path):
    found = evidence(tmp_path, FULL, {plan("lowest", 1): predicted(range(60))})
    (cut,) = proposals(found)
    assert choose_cut([cut]) is None
    assert cut_loss(found, cut).endswith("That there is a loss is clear.")


def test_a_loss_is_excluded_by_many_clips_and_of_few_subjects_for_them_alone(tmp_path):
    labels = [i % 3 for i in range(3000)]
    for subjects, told in ((12, "A loss of more than 1 point can"), (3, "For these subjects, a loss of more than 1")):
        who = [f"s{i // 3 % subjects}" for i in range(3000)]
        full, same = (predicted(range(2700), labels, who) for _ in range(2))
        found = evidence(tmp_path, full, {plan("lowest", 1): same})
        assert told in cut_loss(found, proposals(found)[0])


@pytest.mark.parametrize(
    ("row", "layers", "words"),
    [
        (plan("lowest", 2), 6, "2 of 6 layers (layers 0, 1)"),
        (plan("lowest", 1), 0, "1 layer (layer 0)"),
        (plan("reduced", 0, tokens="random", tokens_kept_pct=50.0, method="tokens"), 6, "tokens random"),
    ],
)
def test_cuts_in_words(tmp_path, row, layers, words):
    found = evidence(tmp_path, FULL, {dataclasses.replace(row, method=row.method or "tokens"): FULL})
    assert named(proposals(found)[0].row, layers) == words


def test_a_class_that_loses_most_is_named(tmp_path):
    # Class 0 has the places 0, 3, 6, ...: of its 40 clips 36 were right, and 12 of those are lost.
    lost = {place for place in range(0, 36, 3)}
    found = evidence(tmp_path, FULL, {plan("lowest", 1): predicted(set(range(108)) - lost)})
    told = class_lost(found, proposals(found)[0])
    assert told.text == "Classes lose unequally: drowsy loses 30 points (40 clips)."
    # Two clips less of each class is nothing to name.
    found = evidence(tmp_path, FULL, {plan("lowest", 1): predicted(range(6, 108))})
    assert class_lost(found, proposals(found)[0]) is None
