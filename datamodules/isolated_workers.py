"""Doing many tasks in processes that may die: what kills one costs its own task and no other.

A pool of `concurrent.futures` gives up all that is waiting when one of its processes dies, and does not say which task
killed it. Here every process has one task at a time and a pipe of its own.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_ATTEMPTS = 2  # a process may have been killed for another's sake, by a system short of memory
_PARENT_CHECK_S = 1.0


@dataclass(frozen=True)
class Lost:
    """What comes of a task that gave no result.

    Attributes:
        reason: What became of it, in one line.
        died: Whether its process died by itself.
    """

    reason: str
    died: bool = False


def run_isolated(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, seconds_per_task: float
) -> Iterator[tuple[Task, Result | Lost]]:
    """Yield every task once, with its result, in the order in which they end.

    Args:
        function: Called on each task in another process; what it raises makes the task lost.
        tasks: What to do, begun in this order.
        workers: Number of processes, at least 1.
        seconds_per_task: A task that takes longer is given up.
    """
    todo = deque((task, 1) for task in tasks)
    team = [_Worker(function, seconds_per_task) for _ in range(min(workers, len(todo)))]
    try:
        for worker in team:
            worker.begin(*todo.popleft())
        while busy := [worker for worker in team if worker.task is not None]:
            patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            wait([worker.connection for worker in busy], timeout=patience)
            for worker in busy:
                outcome = worker.outcome()
                if outcome is None:
                    continue
                [(task, attempt)], worker.task = [worker.task], None
                if isinstance(outcome, Lost) and outcome.died and attempt < _ATTEMPTS:
                    todo.appendleft((task, attempt + 1))
                else:
                    yield task, outcome
                if todo:
                    worker.begin(*todo.popleft())
    finally:
        for worker in team:
            worker.stop()


class _Worker(Generic[Task, Result]):
    """A process, replaced by a new one whenever it is lost."""

    def __init__(self, function: Callable[[Task], Result], seconds_per_task: float) -> None:
        self.task: Any = None
        self.deadline = 0.0
        self._function = function
        self._seconds = seconds_per_task
        self._start()

    def _start(self) -> None:
        # On Linux a fork starts at once; a new interpreter would import everything again.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._function, theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, task: Task, attempt: int) -> None:
        self.task, self.deadline = (task, attempt), time.monotonic() + self._seconds
        with contextlib.suppress(OSError):  # where it has died while it was idle: outcome() will find out
            self.connection.send(task)

    def outcome(self) -> Any:
        """The result, or Lost, or None while the task goes on."""
        if not self.connection.poll():
            if time.monotonic() < self.deadline:
                return None
            lost = Lost(f"gave no answer within {self._seconds:g} s")
        else:
            try:
                return self.connection.recv()
            except (EOFError, OSError):
                self._process.join()
                lost = Lost(f"the process that read it died ({_cause(self._process.exitcode)})", died=True)
        self.stop()
        self._start()
        return lost

    def stop(self) -> None:
        self._process.kill()
        self._process.join(timeout=10)  # not for ever: a process may hang in a file system
        self.connection.close()


def _serve(function: Callable[[Any], Any], connection: Connection, parent: int) -> None:
    """Answer tasks until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    gc.freeze()  # collecting what was inherited from the parent could wait for its threads, which are not here
    while True:
        while not connection.poll(_PARENT_CHECK_S):
            if os.getppid() != parent:
                return
        task = connection.recv()
        try:
            result = function(task)
        except Exception as error:
            result = Lost(f"{type(error).__name__}: {error}")
        connection.send(result)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
