"""The HTML report of a run, after a fit."""

from __future__ import annotations

from pathlib import Path

import lightning as L

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
            page = write_report(folder, embed_mb=self.embed_mb)
        except Exception as error:
            raise RuntimeError(
                f"Report failed after the fit: {error}\nEverything else is safe in {folder}. Try again with: "
                f"python train.py report --run {folder}"
            ) from error
        print(f"Report: {page} ({page.stat().st_size / 1e6:.1f} MB)")
