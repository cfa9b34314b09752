"""What every command on a run ends with: a page that is not older than the results, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L

from callbacks.report import Report
from sightline.report.page.html import write_report
from sightline.report.stored.run_results import RunResults
from sightline.report.verdict.terminal import print_verdict
from sightline.report.verdict.verdict import run_verdict
from sightline.run.paths import RunFolder

CHANGING = ("test", "ablate", "prune", "tokens", "attribute", "explain")
"""Commands whose results the page shows. A fit has the callback `Report`."""
JUDGED = ("fit", "prune", "tokens")
"""Commands after which the verdict may be another."""


def conclude(command: str, folder: Path, callbacks: Sequence[L.Callback]) -> None:
    """Write the report anew where the run has one, and print the verdict.

    Neither is a reason to fail: the command has done its work.

    Args:
        command: What was run.
        folder: The run's folder.
        callbacks: The trainer's, of which `Report` says how much the page may hold.
    """
    page = RunFolder(folder).report
    try:
        if command in CHANGING and page.is_file():
            settings = next((callback for callback in callbacks if isinstance(callback, Report)), Report())
            write_report(folder, embed_mb=settings.embed_mb)
            print(f"Report: {page} written anew")
        if command in JUDGED:
            print_verdict(run_verdict(RunResults(folder)))
    except (OSError, ValueError) as error:
        print(
            f"There is no new report and no verdict: {error} Once that is mended: python train.py report --run {folder}"
        )
