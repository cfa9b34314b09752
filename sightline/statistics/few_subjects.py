"""What to say beside an accuracy that was measured on few subjects."""

from __future__ import annotations

from sightline.statistics.bootstrap import MIN_GROUPS


def caution(subjects: int, clips: int | None = None) -> str:
    """Say in a short sentence why an accuracy's interval is too narrow; empty where it is not.

    Args:
        subjects: Number of tested subjects; 0 where they are not known.
        clips: Number of tested clips, where it is known. Where every clip is of another subject, an interval over
            clips is one over subjects.
    """
    if not 0 < subjects < MIN_GROUPS or (clips is not None and clips <= subjects):
        return ""
    who = "1 subject" if subjects == 1 else f"{subjects} subjects"
    return f"{who}: the interval is over clips and too narrow for new subjects"
