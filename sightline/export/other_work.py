"""Did the machine do other work while this process was timed?

Linux counts for every thread how long it ran and how long it was ready but had to wait for a core
(``/proc/self/task/*/schedstat``, in nanoseconds; Documentation/scheduler/sched-stats.rst of the kernel). On a machine
that does nothing else the waiting is next to nothing, unless a process has more busy threads than there are cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CoreTimes = Mapping[str, tuple[int, int]]
"""Nanoseconds of running and of waiting for a core, by thread."""

BUSY_PCT = 5.0
"""Waiting for longer than this share means that other work slowed what was timed."""
UNSTEADY_PCT = 20.0
"""An interquartile range above this share of the median means the same; a quiet machine stays below 5 %."""


def core_times(tasks: Path = Path("/proc/self/task")) -> CoreTimes:
    """Return the times of every thread of this process; nothing where the system does not tell."""
    found: dict[str, tuple[int, int]] = {}
    try:
        for thread in tasks.iterdir():
            ran, waited = (thread / "schedstat").read_text().split()[:2]
            found[thread.name] = int(ran), int(waited)
    except (OSError, ValueError):  # no Linux, a system without these counts, or a thread that has just ended
        return {}
    return found


def waited_pct(before: CoreTimes, after: CoreTimes) -> float | None:
    """Return which share of the time between two calls of `core_times` threads waited for a core, in percent.

    Returns:
        100 * waiting / (running + waiting), over the threads that were there at the end; None where nothing is known.
    """
    if not before or not after:
        return None
    ran, waited = (
        sum(times[place] - before.get(thread, (0, 0))[place] for thread, times in after.items()) for place in (0, 1)
    )
    return 100 * waited / (ran + waited) if ran + waited > 0 else None


def other_work(waited: float | None, spread_pct: float | None) -> str:
    """Say in what it shows that models were timed beside other work; nothing where it does not show.

    Args:
        waited: From `waited_pct`.
        spread_pct: Interquartile range of the repeats in percent of their median, the largest of the models'.
    """
    told = []
    if waited is not None and waited > BUSY_PCT:
        told.append(f"{waited:.0f} % of the time went by waiting for a core")
    if spread_pct is not None and spread_pct > UNSTEADY_PCT:
        told.append(f"repeats of one model vary by {spread_pct:.0f} %")
    return " and ".join(told)
