"""What a rule finds, and the verdict that findings add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """What a finding means for the reader."""

    GOOD = "good"
    CAUTION = "caution"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What one rule says.

    Attributes:
        rule: Its name, as in docs/reading_results.md.
        grade: What it means.
        text: In plain words, with the numbers that it rests on.
        reason: In a few words, why to be cautious; for the line that sums up. Empty where all is well.
        advice: What to do about it, where something can be done.
        command: The command line to run for that, where there is one.
    """

    rule: str
    grade: Grade
    text: str
    reason: str = ""
    advice: str = ""
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a run's results say.

    Attributes:
        grade: Whether to believe them: the worst of the findings; unknown where nothing was measured.
        headline: What can be cut.
        details: At what loss, with what certainty, and what it saves.
        belief: Whether to believe it, and why not.
        findings: What it rests on, in the order of reading.
        advice: What to do next, where the verdict is not the end.
        command: The command line for that, where there is one.
    """

    grade: Grade
    headline: str
    details: str
    belief: str
    findings: Sequence[Finding]
    advice: str = ""
    command: str = ""


def worst(findings: Sequence[Finding]) -> Grade:
    """Return the worst grade; an unknown answer alone is no reason to doubt those that are known."""
    grades = {finding.grade for finding in findings}
    for grade in (Grade.BAD, Grade.CAUTION, Grade.GOOD):
        if grade in grades:
            return grade
    return Grade.UNKNOWN
