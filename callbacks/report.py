"""The HTML report of a run: after a fit, and as a command on a finished run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from jsonargparse import ArgumentParser

from sightline.report.page.html import write_report


class Report(L.Callback):
    """Writes report.html after the fit. Put it last: it shows what lies in the run's folder by then."""

    def __init__(self, embed_mb: float = 30.0) -> None:
        """Set up the report.

        Args:
            embed_mb: Megabytes of pictures and clips that become part of the file at most; the others are linked.
        """
        self.embed_mb = embed_mb

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if getattr(trainer, "fast_dev_run", False) or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        try:
            report(str(folder), embed_mb=self.embed_mb)
        except Exception as error:
            raise RuntimeError(
                f"Report failed after the fit: {error}\nEverything else is safe in {folder}. Try again with: "
                f"python train.py report --run {folder}"
            ) from error


def report(run: str, out: str | None = None, embed_mb: float = 30.0) -> None:
    """Write one HTML file that shows all results of a run; it opens by double click, without a network.

    Args:
        run: The run's folder.
        out: The file to write; report.html in the run's folder if not given.
        embed_mb: Megabytes of pictures and clips that become part of the file at most; the others are linked.
    """
    page = write_report(run, out, embed_mb)
    print(f"Report: {page} ({page.stat().st_size / 1e6:.1f} MB)")


def report_command(arguments: Sequence[str]) -> int:
    """Run ``report`` with the command line's arguments; return the exit code."""
    explanation = (report.__doc__ or "").partition("Args:")[0]
    parser = ArgumentParser(prog="train.py report", description=explanation)
    parser.add_function_arguments(report, as_group=False, skip={"run"})
    parser.add_argument("--run", type=str, required=True, help="The run's folder.")
    report(**parser.parse_args(list(arguments)).as_dict())
    return 0
