import faulthandler
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from datamodules.isolated_workers import Lost, run_isolated


def square(number):
    return number * number


def fragile(task):
    """Dies, hangs or raises on request."""
    if task == "segfault":
        faulthandler.disable()  # pytest's, which would print a page
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "exit":
        os._exit(3)
    if task == "sleep":
        time.sleep(60)
    if task == "raise":
        raise ValueError("no such thing")
    return f"{task} done"


def once(path):
    """Is killed the first time and succeeds the second, as where memory was short."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_task_once(workers):
    found = list(run_isolated(square, list(range(20)), workers, 60))
    assert sorted(found) == [(number, number * number) for number in range(20)]


def test_nothing_to_do():
    assert list(run_isolated(square, [], 2, 60)) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [1, 3])
def test_what_kills_a_process_costs_its_own_task(workers):
    tasks = ["a", "segfault", "b", "exit", "raise", "c", "sleep", "segfault", "d"]
    found = list(run_isolated(fragile, tasks, workers, 2.0))
    assert sorted(task for task, _ in found) == sorted(tasks)
    outcomes = dict(found)
    assert {task: outcomes[task] for task in "abcd"} == {task: f"{task} done" for task in "abcd"}
    assert outcomes["segfault"] == Lost("the process that read it died (SIGSEGV)", died=True)
    assert outcomes["exit"] == Lost("the process that read it died (exit code 3)", died=True)
    assert outcomes["sleep"] == Lost("gave no answer within 2 s")
    assert outcomes["raise"] == Lost("ValueError: no such thing")


def test_a_task_whose_process_was_killed_is_tried_again(tmp_path):
    path = str(tmp_path / "mark")
    assert list(run_isolated(once, [path], 1, 60)) == [(path, "done")]


def test_processes_end_with_the_caller():
    before = set(multiprocessing.active_children())
    results = run_isolated(square, list(range(100)), 2, 60)
    next(results)
    assert len(set(multiprocessing.active_children()) - before) == 2
    results.close()  # as an interruption does
    assert set(multiprocessing.active_children()) <= before
