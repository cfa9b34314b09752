"""Several processes of a job, as threads of one: each meets the others wherever it says whether it succeeded."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sightline.run.ranks import Ranks


def in_threads(world: int, job: Callable[[Ranks], Any], timeout: float = 120) -> list[Any]:
    """Run a job on ``world`` ranks at once and return what each returned; the first failure is raised."""
    barrier, flags = threading.Barrier(world), [True] * world

    def ranks(rank: int) -> Ranks:
        def all_true(flag: bool) -> bool:
            flags[rank] = flag
            barrier.wait(timeout)
            agreed = all(flags)
            barrier.wait(timeout)
            return agreed

        return Ranks(rank, world, all_true)

    with ThreadPoolExecutor(world) as pool:
        running = [pool.submit(job, ranks(rank)) for rank in range(world)]
        return [each.result(timeout) for each in running]
