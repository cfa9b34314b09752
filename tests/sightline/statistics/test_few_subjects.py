"""When few subjects ask for caution."""

import pytest

from sightline.statistics.few_subjects import caution


@pytest.mark.parametrize(
    ("subjects", "clips", "text"),
    [
        (3, 180, "3 subjects: the interval is over clips and too narrow for new subjects"),
        (1, 10, "1 subject: the interval is over clips and too narrow for new subjects"),
        (8, 180, ""),
        (0, 180, ""),  # nobody knows who is in the clips
        (5, 5, ""),  # a clip per subject: they are independent
    ],
)
def test_fewer_than_eight_ask_for_caution(subjects, clips, text):
    assert caution(subjects, clips) == text
