"""Whether the clips can tell."""

from sightline.report.verdict.data_rules import few_clips, few_subjects, left_out, no_shared_groups
from sightline.report.verdict.evidence import Evidence
from sightline.report.verdict.findings import Grade
from tests.sightline.report.verdict.examples import predicted


def test_few_subjects_ask_for_caution():
    assert few_subjects(Evidence(test=predicted(range(120)))) is None
    found = few_subjects(Evidence(test=predicted(range(120), subjects=[f"s{i % 3}" for i in range(120)])))
    assert found.reason == "only 3 test subjects"
    assert found.text.startswith("Tested on 3 subjects: the interval is over clips")
    assert few_subjects(Evidence(test=predicted(range(120), subjects=[""] * 120))) is None
    assert few_subjects(Evidence(test=predicted(range(120), subjects=["", *["s1"] * 119]))) is None  # who, is not known


def test_few_clips_ask_for_caution():
    assert few_clips(Evidence(test=predicted(range(120)))) is None
    labels = [i % 3 for i in range(48)]
    found = few_clips(Evidence(test=predicted(range(48), labels, ["s"] * 48)))
    assert found.text == "48 test clips: one is 2.1 points."
    rare = [0] * 100 + [1] * 15 + [2] * 5
    found = few_clips(Evidence(test=predicted(range(120), rare), classes=("a", "b", "c")))
    assert found.text == "Too few test clips of c to see whether they lose."


def test_subjects_in_two_splits_spoil_the_test():
    assert no_shared_groups(Evidence()) is None
    found = no_shared_groups(Evidence(shared_groups=("s1", "s2")))
    assert found.grade == Grade.BAD
    assert found.text.startswith("s1 and s2 in more than one split")


def test_classes_that_lack_clips_are_named():
    assert left_out(Evidence(unreadable={"drowsy": (5, 100)})) is None
    found = left_out(Evidence(unreadable={"drowsy": (6, 100), "texting": (0, 100)}))
    assert found.text == "Unreadable clips: drowsy 6 of 100."
    assert found.command == "python train.py check-data"
