import logging

import pytest

from datamodules.bad_clips import BadClips, TooManyBadClipsError


def test_logs_once_and_counts(caplog):
    bad = BadClips("train", 1000, 0.01)
    with caplog.at_level(logging.WARNING):
        bad.add([("a.avi", "cut short")])
        bad.add([("a.avi", "cut short"), ("b.avi", "empty")])
    assert [record.getMessage() for record in caplog.records] == [
        "Unreadable clip in the train split: a.avi: cut short",
        "Unreadable clip in the train split: b.avi: empty",
    ]
    assert bad.reasons == {"a.avi": "cut short", "b.avi": "empty"}
    assert bad.summary() == (
        "2 of 1000 clips of the train split could not be read and were replaced by clips of their class "
        "(3 times in all): a.avi, b.avi"
    )


@pytest.mark.parametrize(
    ("num_clips", "fraction", "allowed"), [(1000, 0.01, 10), (5, 0.01, 1), (10, 0.0, 1), (4, 1.0, 4)]
)
def test_stops_when_too_many(num_clips, fraction, allowed):
    bad = BadClips("val", num_clips, fraction)
    bad.add([(f"{number}.avi", "empty") for number in range(allowed)])
    with pytest.raises(
        TooManyBadClipsError, match=rf"at most {allowed} .* of the val split, met {allowed + 1}:\n  0.avi: empty"
    ):
        bad.add([("last.avi", "empty")])


def test_no_summary_without_bad_clips():
    assert BadClips("test", 3, 0.1).summary() == ""
