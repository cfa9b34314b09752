"""Waiting for cores, on counts that were written by hand and on this machine."""

import multiprocessing
import os
import sys
import time

import pytest

from sightline.export.other_work import core_times, other_work, waited_pct


def test_counts_are_read_of_every_thread(tmp_path):
    for thread, text in (("11", "500 40 7\n"), ("12", "100 0 1\n")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    assert core_times(tmp_path) == {"11": (500, 40), "12": (100, 0)}
    assert core_times(tmp_path / "none") == {}


def test_the_share_is_waiting_over_waiting_and_running():
    before = {"1": (100, 50), "gone": (900, 900)}
    after = {"1": (400, 100), "new": (250, 400)}
    assert waited_pct(before, after) == pytest.approx(100 * (50 + 400) / (300 + 250 + 50 + 400))
    assert waited_pct({}, after) is None
    assert waited_pct(after, after) is None


@pytest.mark.parametrize(
    ("waited", "spread", "told"),
    [
        (None, None, ""),
        (4.9, 19.0, ""),
        (12.4, None, "12 % of the time went by waiting for a core"),
        (12.4, 33.0, "12 % of the time went by waiting for a core and repeats of one model vary by 33 %"),
    ],
)
def test_what_is_told(waited, spread, told):
    assert other_work(waited, spread) == told


def _spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.skipif(sys.platform != "linux" or not core_times(), reason="the system does not count waiting")
def test_a_process_beside_this_one_on_its_core_shows():
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        other = multiprocessing.get_context("fork").Process(target=_spin, args=(0.8,))
        other.start()
        before = core_times()
        _spin(0.5)
        waited = waited_pct(before, core_times())
        other.join()
    finally:
        os.sched_setaffinity(0, cores)
    assert waited > 20  # half of the time in theory
