"""The verdict on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sightline.report.verdict.findings import Grade, Verdict

MARKS = {Grade.GOOD: "+", Grade.CAUTION: "!", Grade.BAD: "x", Grade.UNKNOWN: "?"}
STYLES = {Grade.GOOD: "green", Grade.CAUTION: "yellow", Grade.BAD: "red", Grade.UNKNOWN: "dim"}


def print_verdict(verdict: Verdict, console: Console | None = None) -> None:
    """Print what can be cut, whether to believe it, what that rests on, and what to do next.

    Commands stand on lines of their own, which are not broken, so that they can be copied.

    Args:
        verdict: The verdict.
        console: Where to; the standard output, at least 100 columns wide, if not given.
    """
    console = console or Console(width=max(Console().width, 100))

    def line(text: str, style: str = "", indent: int = 2) -> None:
        console.print(Padding(Text(text, style=style), (0, 0, 0, indent), expand=False))

    line(f"Verdict: {verdict.headline}", "bold", indent=0)
    line(verdict.details)
    line(f"Can it be believed? {verdict.belief}", f"bold {STYLES[verdict.grade]}")
    for finding in verdict.findings:
        row = Table.grid(padding=(0, 1, 0, 0))
        advice = "" if finding.grade in (Grade.GOOD, Grade.UNKNOWN) or finding.command else finding.advice
        row.add_row(Text(MARKS[finding.grade], STYLES[finding.grade]), Text(f"{finding.text} {advice}".strip()))
        console.print(Padding(row, (0, 0, 0, 4), expand=False))
    for advice, command in _steps(verdict):
        line(f"Next: {advice}")
        if command:
            console.print(Text(f"    {command}"), soft_wrap=True)


def _steps(verdict: Verdict) -> list[tuple[str, str]]:
    """Return what to do: the verdict's own advice, then the commands that doubtful findings ask for, each once."""
    doubtful = [f for f in verdict.findings if f.grade in (Grade.BAD, Grade.CAUTION) and f.command]
    steps = {verdict.command: verdict.advice} if verdict.advice else {}
    for finding in doubtful:
        steps.setdefault(finding.command, finding.advice)
    return [(advice, command) for command, advice in steps.items()]
