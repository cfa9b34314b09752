"""The processes that share a job, without knowing what launched them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


def _alone(flag: bool) -> bool:
    return flag


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a job.

    Attributes:
        rank: Index of this process.
        world: Number of processes.
        all_true: Collective: whether every process passed true. All processes must call it equally often.
    """

    rank: int = 0
    world: int = 1
    all_true: Callable[[bool], bool] = _alone

    def together(self, action: Callable[[], Result], only_first: bool = False) -> Result | None:
        """Run an action and make sure that it succeeded everywhere before anyone goes on.

        Without this, a process that fails leaves the others waiting in their next collective.

        Args:
            action: What to do.
            only_first: Run it on rank 0 alone; the others wait, and get None.

        Raises:
            RuntimeError: If it failed on another rank; where it failed itself, the failure.
        """
        result, failure = None, None
        if self.rank == 0 or not only_first:
            try:
                result = action()
            except Exception as error:
                failure = error
        everyone = self.all_true(failure is None)
        if failure is not None:
            raise failure
        if not everyone:
            raise RuntimeError("Another process of this job failed; its error is the one to read.")
        return result
