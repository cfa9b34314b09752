"""A word of caution where few subjects were tested."""

from __future__ import annotations

from sightline.statistics.bootstrap import MIN_GROUPS


def caution(subjects: int, clips: int) -> str:
    """Say in one sentence, without a full stop, what few subjects mean for an interval; nothing where there are enough.

    Args:
        subjects: Number of subjects that the clips show; 0 where they are unknown.
        clips: Number of clips.
    """
    if subjects == 0 or subjects >= MIN_GROUPS or subjects == clips:
        return ""
    named = "1 subject" if subjects == 1 else f"{subjects} subjects"
    return f"{named}: the interval is over clips and too narrow for new subjects"
