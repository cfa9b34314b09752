"""Whether the model is any good, on predictions made by hand."""

import numpy as np
import pandas as pd
import pytest

from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Grade
from sightline.report.verdict.model_rules import beats_majority, beats_one_frame, classes_alike, memorised
from tests.sightline.report.verdict.examples import CLIPS, predicted


def test_a_good_model_beats_the_majority():
    found = beats_majority(Evidence(test=predicted(range(108))))
    assert found.grade == Grade.GOOD
    assert "Top-1 is 90.0 %" in found.text
    assert "(33.3 %) that is +56.7 points" in found.text


def test_a_model_that_learned_nothing_does_not():
    guesses = predicted(np.random.default_rng(0).permutation(CLIPS)[:41])
    found = beats_majority(Evidence(test=guesses, training=35.0, validation_labels=(10, 10, 10)))
    assert found.grade == Grade.BAD
    assert "34.2 %, not clearly better than always giving the most frequent class (33.3 %)" in found.text
    assert "35.0 % on its own training clips" in found.advice
    assert found.command == "python train.py preview"
    memory = beats_majority(Evidence(test=guesses, training=99.0, validation_labels=(10, 10, 10)))
    assert "it memorised them" in memory.advice


def test_always_the_frequent_class_is_no_accuracy():
    labels = [0] * 90 + [1] * 20 + [2] * 10
    constant = predicted(range(90), labels)
    constant["predicted"] = 0
    assert (constant["label"] == constant["predicted"]).mean() == 0.75
    assert beats_majority(Evidence(test=constant)).grade == Grade.BAD


def test_a_weak_model_asks_for_caution():
    # 45.0 % of three classes: clearly above 33.3, but less than a fifth of the way to 100.
    labels, subjects = [i % 3 for i in range(1200)], [f"s{i // 3 % 12}" for i in range(1200)]
    found = beats_majority(Evidence(test=predicted(range(540), labels, subjects)))
    assert found.grade == Grade.CAUTION
    assert found.reason == "the model is hardly better than guessing"


def test_confusions_alone_decide_over_clips():
    counts = pd.DataFrame({"label": [0] * 60 + [1] * 60, "predicted": [0] * 55 + [1] * 65, "group": ""})
    assert beats_majority(Evidence(test=counts)).grade == Grade.GOOD
    assert beats_one_frame(Evidence(test=counts)) is None


@pytest.mark.parametrize(("top1", "grade"), [(80.0, Grade.CAUTION), (40.0, Grade.BAD), (None, Grade.UNKNOWN)])
def test_without_a_test_validation_decides_and_never_well(top1, grade):
    # 40 % of 60 clips: 28.6 to 52.6 contains the third that the most frequent class has.
    found = beats_majority(Evidence(validation=top1, validation_labels=(20, 20, 20)))
    assert found.grade == grade
    assert ("validation" in found.text) == (top1 is not None)
    if grade != Grade.BAD:
        assert found.command == "python train.py test"


def test_motion_is_used_where_one_frame_repeated_is_worse():
    full = predicted(range(108))
    found = beats_one_frame(Evidence(test=full, one_frame=predicted(range(60))))
    assert found.grade == Grade.GOOD
    assert "with one frame repeated, top-1 is 50.0 %; whole clips give +40.0 points" in found.text
    still = beats_one_frame(Evidence(test=full, one_frame=predicted(range(2, 109))))
    assert still.grade == Grade.CAUTION
    assert still.reason == "one repeated frame does as well as the clip"
    unknown = beats_one_frame(Evidence(test=full))
    assert (unknown.grade, unknown.command) == (Grade.UNKNOWN, "python train.py prune")


def test_frequent_classes_hide_rare_ones():
    labels = [0] * 100 + [1] * 10 + [2] * 10
    assert classes_alike(Evidence(test=predicted(range(120), labels))) is None
    found = classes_alike(Evidence(test=predicted(range(100), labels)))
    assert found.grade == Grade.CAUTION
    assert "Top-1 is 83.3 %, but the mean over classes 33.3 %" in found.text


def test_memory_shows_in_the_gap_to_validation():
    assert memorised(Evidence(training=99.0, validation=80.0)) is None
    assert memorised(Evidence(validation=80.0)) is None
    found = memorised(Evidence(training=99.0, validation=60.0))
    assert (found.grade, found.command) == (Grade.CAUTION, "python train.py ablate --split val")
