import csv
import logging
import multiprocessing

import pytest

from datamodules.bad_clip_record import COLUMNS, BadClipRecord
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
        "2 of 1000 clips of the train split could not be read (replaced by others of their class in training, left out "
        "of evaluation):\n  a.avi: cut short\n  b.avi: empty"
    )


@pytest.mark.parametrize(
    ("num_clips", "fraction", "allowed"), [(1000, 0.01, 10), (5, 0.01, 1), (10, 0.0, 1), (4, 1.0, 4), (100, 0.29, 29)]
)
def test_stops_when_too_many(num_clips, fraction, allowed):
    bad = BadClips("val", num_clips, fraction)
    bad.add([(f"{number}.avi", "empty") for number in range(allowed)])
    bad.add([("0.avi", "empty")])  # again, as in the next epoch
    with pytest.raises(
        TooManyBadClipsError, match=rf"at most {allowed} .* of the val split, met {allowed + 1}:\n  0.avi: empty"
    ):
        bad.add([("last.avi", "empty")])


def test_no_summary_without_bad_clips():
    assert BadClips("test", 3, 0.1).summary() == ""


class TestRecord:
    def path(self, tmp_path):
        return tmp_path / "tables" / "unreadable.csv"

    def read(self, path):
        with path.open(newline="") as file:
            return list(csv.reader(file))

    def test_lists_every_clip_of_every_process_once(self, tmp_path):
        path = self.path(tmp_path)
        one, two = (BadClips("train", 400, 0.01, BadClipRecord(path, rank)) for rank in (0, 1))
        one.add([("a.avi", "cut, short"), ("b.avi", "two\nlines")])
        two.add([("c.avi", "empty")])
        two.add([("a.avi", "cut, short")])
        BadClips("val", 400, 0.01, BadClipRecord(path, 1)).add([("d.avi", "empty")])
        assert self.read(path) == [
            list(COLUMNS),
            ["train", "a.avi", "cut, short"],
            ["train", "b.avi", "two lines"],
            ["train", "c.avi", "empty"],
            ["val", "d.avi", "empty"],
        ]
        assert set(two.reasons) == {"a.avi", "b.avi", "c.avi"}
        for bad in (one, two):
            assert bad.summary().startswith("3 of 400 clips of the train split")
        with pytest.raises(TooManyBadClipsError, match=r"at most 4 .* met 5"):
            one.add([("e.avi", "empty"), ("f.avi", "empty")])
        assert len(self.read(path)) == 7  # also those that stopped the run

    def test_what_another_process_met_is_not_logged_again(self, tmp_path, caplog):
        one, two = (BadClips("train", 400, 0.01, BadClipRecord(self.path(tmp_path), rank)) for rank in (0, 1))
        one.add([("a.avi", "empty")])
        two.add([("b.avi", "empty")])
        two.add([("a.avi", "empty")])
        assert [record.args[1] for record in caplog.records] == ["a.avi", "b.avi"]

    def test_an_earlier_list_is_cleared(self, tmp_path):
        record = BadClipRecord(self.path(tmp_path), 3)
        record.add("train", {"a.avi": "empty"})
        BadClipRecord(self.path(tmp_path)).clear()
        assert not self.path(tmp_path).exists()
        assert record.splits() == []

    def test_half_a_line_is_left_for_later(self, tmp_path):
        record = BadClipRecord(self.path(tmp_path), 0)
        record.add("train", {"a.avi": "empty"})
        [part] = (self.path(tmp_path).parent / ".unreadable.csv.parts").iterdir()
        (part.parent / "1.csv").write_text('train,b.avi,"hal')
        assert record.of_split("train") == {"a.avi": "empty"}

    @pytest.mark.timeout(60)
    def test_processes_that_add_at_once_lose_nothing(self, tmp_path):
        path = self.path(tmp_path)
        adders = [multiprocessing.Process(target=add_many, args=(path, rank)) for rank in range(4)]
        for adder in adders:
            adder.start()
        for adder in adders:
            adder.join()
            assert adder.exitcode == 0
        assert sorted(row[1] for row in self.read(path)[1:]) == sorted(
            f"{r}-{n}.avi" for r in range(4) for n in range(25)
        )
        assert {file.name for file in path.parent.iterdir()} == {"unreadable.csv", ".unreadable.csv.parts"}


def add_many(path, rank):
    record = BadClipRecord(path, rank)
    for number in range(25):
        record.add("train", {f"{rank}-{number}.avi": "empty"})


def test_a_name_that_is_no_utf8_is_written(tmp_path, monkeypatch):
    # Captured messages go to pytest-xdist's first process as UTF-8, which the name is not.
    monkeypatch.setattr(logging.getLogger(BadClips.__module__), "disabled", True)
    record = BadClipRecord(tmp_path / "unreadable.csv")
    BadClips("train", 400, 0.01, record).add([("caf\udce9.avi", "empty")])
    assert (tmp_path / "unreadable.csv").read_text(encoding="utf-8").splitlines()[1] == r"train,caf\udce9.avi,empty"
