"""Counting the clips that could not be read, and stopping before a run is built on too few of the others."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from datamodules.bad_clip_record import BadClipRecord

log = logging.getLogger(__name__)

_LISTED = 20


class TooManyBadClipsError(ValueError):
    """More clips of a split are unreadable than ``max_bad_fraction`` allows."""


class BadClips:
    """The unreadable clips of one split: logs each of them once, counts them, and stops the run when they are too many.

    It lives in the main process and is fed with ``batch["unreadable"]``. With a record, the processes of a job count
    together: each knows of what the others met as soon as it meets one itself.
    """

    def __init__(self, split: str, num_clips: int, max_fraction: float, record: BadClipRecord | None = None) -> None:
        self.split = split
        self.num_clips = num_clips
        # One bad clip never stops a run: in a small split it alone would exceed any sensible fraction.
        # The sum: 0.29 * 100 is a little less than 29.
        self.allowed = max(1, math.floor(max_fraction * num_clips + 1e-6))
        self.reasons: dict[str, str] = {}
        self._record = record

    def add(self, unreadable: Iterable[tuple[str, str]]) -> None:
        """Take note of the (sample_id, reason) pairs of a batch.

        Raises:
            TooManyBadClipsError: When more distinct clips than allowed have been unreadable.
        """
        new = {name: reason for name, reason in unreadable if name not in self.reasons}
        for sample_id, reason in new.items():
            log.warning("Unreadable clip in the %s split: %s: %s", self.split, sample_id, reason)
        self.reasons |= new
        if new and self._record is not None:
            self.reasons |= self._record.add(self.split, new)
        if len(self.reasons) > self.allowed:
            raise TooManyBadClipsError(self._too_many())

    def _too_many(self) -> str:
        listed = [f"  {name}: {reason}" for name, reason in list(self.reasons.items())[:_LISTED]]
        if more := len(self.reasons) - len(listed):
            listed.append(f"  ... and {more} more")
        where = f" (all are listed in {self._record.path})" if self._record is not None else ""
        return (
            f"Expected at most {self.allowed} unreadable clip(s) among the {self.num_clips} of the {self.split} "
            f"split, met {len(self.reasons)}{where}:\n"
            + "\n".join(listed)
            + "\nRepair or remove these files, or raise data.max_bad_fraction to go on without them. "
            "train.py check-data finds all of them."
        )

    def summary(self) -> str:
        """What to say at the end of a run: every clip that could not be read; empty when all were readable."""
        if self._record is not None:
            self.reasons |= self._record.of_split(self.split)
        if not self.reasons:
            return ""
        replaced = "replaced by others of their class in training, " if self.split == "train" else ""
        listed = [f"\n  {name}: {reason}" for name, reason in sorted(self.reasons.items())]
        return (
            f"{len(self.reasons)} of {self.num_clips} clips of the {self.split} split could not be read "
            f"({replaced}left out of evaluation):{''.join(listed)}"
        )
