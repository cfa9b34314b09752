"""The processes of one job: every sample by exactly one of them, and the result is that of one."""

import pandas as pd
import pytest

from sightline.run import sharing
from sightline.run.parts import PartStore, in_order
from sightline.run.sharing import share_result
from tests.sightline.run.numbers import NAMES, SCHEMA, Numbers, work
from tests.sightline.run.threads import in_threads


def result(folder, numbers, ranks=None, made_from=None, **options):
    parts = PartStore.beside(folder / "numbers.csv", SCHEMA, made_from)

    def join(rows) -> pd.DataFrame:
        return in_order(rows, SCHEMA, NAMES)

    return share_result(parts, NAMES, numbers.batches, work, join, ranks, **options)


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_processes_gives_what_one_gives(tmp_path, world):
    alone = result(tmp_path / "one", Numbers(size=7))
    assert alone["sample_id"].is_monotonic_increasing
    numbers = [Numbers() for _ in range(world)]
    found = in_threads(world, lambda ranks: result(tmp_path / "all", numbers[ranks.rank], ranks, seconds_per_part=0))
    pd.testing.assert_frame_equal(found[0], alone)
    assert found[1:] == [None] * (world - 1)
    assert [each.served for each in numbers] == [list(range(90))[rank::world] for rank in range(world)]
    assert list((tmp_path / "all").iterdir()) == []


def test_an_interrupted_job_is_finished_by_another_number_of_processes(tmp_path):
    alone = result(tmp_path / "one", Numbers())
    with pytest.raises(KeyboardInterrupt):
        result(tmp_path / "all", Numbers(die_after=9), made_from={"a": 1}, seconds_per_part=0)
    numbers = [Numbers(), Numbers()]
    found = in_threads(2, lambda ranks: result(tmp_path / "all", numbers[ranks.rank], ranks, {"a": 1}))
    pd.testing.assert_frame_equal(found[0], alone)
    # 18 samples were served, of which the unreadable one is tried again.
    assert sorted(numbers[0].served + numbers[1].served) == [13, *range(18, 90)]


def test_without_knowing_what_it_is_made_of_a_job_begins_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        result(tmp_path, Numbers(die_after=9), seconds_per_part=0)
    second = Numbers()
    result(tmp_path, second)
    assert second.served == list(range(90))


def test_parts_are_written_when_they_grow_large(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "_BYTES_PER_PART", 200)
    parts = PartStore(tmp_path, SCHEMA, {})
    parts.begin()
    sharing.work_through(parts, Numbers(size=2).batches(list(range(12))), work, 12, sharing.Ranks())
    assert len(parts.files()) == 3
    assert parts.progress().done == set(NAMES[:12])


def test_a_failure_on_one_process_stops_all(tmp_path):
    def fail(batch):
        raise ValueError("no such unit")

    def job(ranks):
        parts = PartStore(tmp_path / "parts", SCHEMA, {})
        own = fail if ranks.rank else work
        return share_result(parts, NAMES, Numbers().batches, own, list, ranks)

    with pytest.raises((ValueError, RuntimeError), match=r"no such unit|Another process"):
        in_threads(2, job)
