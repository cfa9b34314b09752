"""Counting the clips that could not be read, and stopping before a run is built on too few of the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)


class TooManyBadClipsError(RuntimeError):
    """More clips of a split are unreadable than ``max_bad_fraction`` allows."""


class BadClips:
    """The unreadable clips of one split: logs each of them once, counts them, and stops the run when they are too many.

    It lives in the main process and is fed with ``batch["unreadable"]``. Under DDP every rank counts what it met.
    """

    def __init__(self, split: str, num_clips: int, max_fraction: float) -> None:
        self.split = split
        self.num_clips = num_clips
        # One bad clip never stops a run: in a small split it alone would exceed any sensible fraction.
        self.allowed = max(1, int(max_fraction * num_clips))
        self.reasons: dict[str, str] = {}
        self.times = 0

    def add(self, unreadable: Iterable[tuple[str, str]]) -> None:
        """Take note of the (sample_id, reason) pairs of a batch.

        Raises:
            TooManyBadClipsError: When more distinct clips than allowed have been unreadable.
        """
        for sample_id, reason in unreadable:
            self.times += 1
            if sample_id not in self.reasons:
                self.reasons[sample_id] = reason
                log.warning("Unreadable clip in the %s split: %s: %s", self.split, sample_id, reason)
        if len(self.reasons) > self.allowed:
            listed = [f"  {name}: {reason}" for name, reason in list(self.reasons.items())[:20]]
            more = len(self.reasons) - len(listed)
            raise TooManyBadClipsError(
                f"Expected at most {self.allowed} unreadable clip(s) among the {self.num_clips} of the {self.split} "
                f"split, met {len(self.reasons)}:\n"
                + "\n".join(listed)
                + (f"\n  ... and {more} more" if more else "")
                + "\nRepair or remove these files, or raise data.max_bad_fraction to go on without them."
            )

    def summary(self) -> str:
        """One line for the end of a run; empty when every clip was readable."""
        if not self.reasons:
            return ""
        fate = "replaced by clips of their class" if self.split == "train" else "left out"
        names = ", ".join(sorted(self.reasons)[:5]) + (", ..." if len(self.reasons) > 5 else "")
        return (
            f"{len(self.reasons)} of {self.num_clips} clips of the {self.split} split could not be read "
            f"and were {fate} ({self.times} times in all): {names}"
        )
