"""``report``: one HTML page of a run's results."""

from __future__ import annotations

from pathlib import Path

from sightline.commands.options import call_with_options


def run(name: str, arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    call_with_options(report, name, arguments)
    return 0


def report(run: str, out: str | None = None, embed_mb: float = 30.0) -> None:
    """Write one HTML file that shows all results of a run, and print the verdict that it opens with.

    Args:
        run: The run's folder.
        out: The file to write; report.html in the run's folder if not given.
        embed_mb: Megabytes of pictures and clips that become part of the file at most; the others are linked.
    """
    # Not needed for --help.
    from sightline.report.page.html import write_report
    from sightline.report.stored.run_results import RunResults
    from sightline.report.verdict.terminal import print_verdict
    from sightline.report.verdict.verdict import run_verdict

    page = write_report(run, out, embed_mb)
    print_verdict(run_verdict(RunResults(Path(run))))
    print(f"Report: {page} ({page.stat().st_size / 1e6:.1f} MB)")
