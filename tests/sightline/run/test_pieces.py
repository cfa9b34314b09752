"""Numbered pieces of one job on machines that share nothing: whatever died or was done twice, together they are one."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from sightline.run.parts import Piece, in_order
from sightline.run.unfinished import is_unfinished
from tests.sightline.run.numbers import BAD, NAMES, SCHEMA, Numbers, do_piece, store, work

ROOT = Path(__file__).resolve().parents[3]
OF = 16


def joined(parts) -> pd.DataFrame:
    parts.check_complete(NAMES)
    return in_order(parts.rows(), SCHEMA, NAMES)


@pytest.fixture
def expected(tmp_path) -> pd.DataFrame:
    do_piece(tmp_path / "alone", Piece(0, 1), Numbers(size=7))
    return joined(store(tmp_path / "alone"))


def kill_a_process_at(folder: Path, number: int) -> None:
    """Start a real process on a piece and kill it as soon as a part of it is on disk."""
    command = [sys.executable, "-m", "tests.sightline.run.numbers", str(folder), str(number), str(OF), "0.3"]
    with subprocess.Popen(command, cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not store(folder).files():
            assert process.poll() is None, "finished before it could be killed"
            assert time.monotonic() < deadline, "wrote no part"
            time.sleep(0.01)
        process.kill()


def test_a_piece_is_told_by_its_numbers_alone():
    assert list(Piece(2, 4).places(11)) == [2, 6, 10]
    places = [place for number in range(4) for place in Piece(number, 4).places(11)]
    assert sorted(places) == list(range(11))
    assert list(Piece(3, 4).places(3)) == []
    for number, of in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="Expected a piece from 0"):
            Piece(number, of)


def test_sixteen_pieces_in_any_order_with_two_killed_and_one_done_twice_are_the_whole(tmp_path, expected):
    machines = [tmp_path / f"machine{number}" for number in range(OF)]
    order = list(range(OF))
    random.Random(3).shuffle(order)
    for number in order:
        if number in (4, 11):
            kill_a_process_at(machines[number], number)
        second = Numbers()
        do_piece(machines[number], Piece(number, OF), second)
        if number in (4, 11):  # what the killed process had written is not computed again
            assert 0 < len(second.served) < len(Piece(number, OF).places(len(NAMES)))
    do_piece(tmp_path / "again", Piece(7, OF), Numbers(size=5))

    merged = store(tmp_path / "merged")
    merged.begin()
    copies = [shutil.copytree(folder, tmp_path / "copies" / folder.name) for folder in (*machines, tmp_path / "again")]
    random.Random(4).shuffle(copies)
    merged.gather([copy / "numbers.parts" for copy in copies])
    pd.testing.assert_frame_equal(joined(merged), expected, check_exact=True)
    assert BAD not in set(expected["sample_id"])
    assert merged.progress().left_out == {BAD: "cut short"}
    count = len(merged.files())
    merged.gather([copies[0] / "numbers.parts"])  # the same files once more
    assert len(merged.files()) == count


def test_missing_pieces_are_named(tmp_path):
    merged = store(tmp_path)
    merged.begin()
    for number in set(range(OF)) - {3, 9}:
        do_piece(tmp_path, Piece(number, OF), Numbers())
    with pytest.raises(RuntimeError, match=r"12 of 90 samples have no results yet \(pieces 3, 9 of 16\), e\.g\. n003"):
        merged.check_complete(NAMES)
    do_piece(tmp_path, Piece(3, OF), Numbers())
    with pytest.raises(KeyboardInterrupt):
        do_piece(tmp_path, Piece(9, OF), Numbers(die_after=2))
    with pytest.raises(RuntimeError, match=r"2 of 90 samples have no results yet \(piece 9 of 16\), e\.g\. n073"):
        merged.check_complete(NAMES)
    again = Numbers()
    do_piece(tmp_path, Piece(9, OF), again)
    assert again.served == [73, 89]
    merged.check_complete(NAMES)
    again = Numbers()
    do_piece(tmp_path, Piece(9, OF), again)
    assert again.served == []


def test_pieces_of_other_settings_are_refused(tmp_path):
    ours, other = store(tmp_path / "ours"), store(tmp_path / "other", weights_sha256="v")
    ours.begin()
    other.begin()
    other.write([], NAMES, {})
    with pytest.raises(ValueError, match="made from weights_sha256 'v'; expected weights_sha256 'w'"):
        ours.gather([other.folder])
    assert ours.files() == []
    with pytest.raises(FileNotFoundError, match=r"it has no settings\.json"):
        ours.gather([tmp_path])


def test_two_results_of_one_sample_must_agree(tmp_path):
    parts = store(tmp_path)
    parts.begin()
    for value in (1.0, 1.0 + 1e-6):
        parts.write([pa.table([["n001", "n001"], [0, 1], [2.0, value]], schema=SCHEMA)], ["n001", "n010"], {})
    with pytest.raises(ValueError, match=r"different results of the same sample, e\.g\. of n001"):
        list(parts.rows())
    assert sum(len(rows) for rows in parts.rows(tolerance=1e-5)) == 2
    parts.write([pa.table([["n001"], [0], [2.0]], schema=SCHEMA)], ["n001"], {})
    with pytest.raises(ValueError, match="different results"):
        list(parts.rows(tolerance=1e-5))


def test_samples_of_another_list_are_noticed(tmp_path):
    parts = store(tmp_path)
    parts.begin()
    parts.write([], [*NAMES, "x"], {})
    with pytest.raises(ValueError, match=r"1 samples that the data does not have, e\.g\. x"):
        parts.check_complete(NAMES)


def test_a_damaged_copy_is_named(tmp_path):
    do_piece(tmp_path / "a", Piece(0, 2), Numbers())
    ours, theirs = store(tmp_path / "b"), store(tmp_path / "a")
    ours.begin()
    path = theirs.files()[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"{path.name} is no whole part of a result"):
        ours.gather([theirs.folder])


def test_parts_of_older_versions_and_other_settings_are_discarded_and_told(tmp_path, caplog):
    parts = store(tmp_path)
    parts.folder.mkdir(parents=True)
    (parts.folder / "0.csv").write_text("sample_id\n")
    parts.begin()
    assert "are of an older version" in caplog.text
    parts.write([], ["n001"], {})
    caplog.clear()
    parts.begin()
    assert (caplog.text, len(parts.files())) == ("", 1)
    other = store(tmp_path, weights_sha256="v")
    other.begin()
    assert "are of another weights_sha256" in caplog.text
    assert (other.files(), other.stored_settings()) == ([], other.made_from)


def test_a_part_that_is_being_written_does_not_count(tmp_path):
    parts = store(tmp_path)
    parts.begin()

    class Stop(Exception):
        """Raised while the file is open."""

    class Rows:
        def cast(self, schema):
            [half] = [path for path in parts.folder.iterdir() if is_unfinished(path.name)]
            assert half.suffix == ".parquet"
            assert parts.files() == []
            raise Stop

    with pytest.raises(Stop):
        parts.write([work({"sample_id": ["n001"]}).rows, Rows()], ["n001"], {})
    assert [path.name for path in parts.folder.iterdir()] == ["settings.json"]
