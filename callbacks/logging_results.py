"""Handing results to W&B, where there is one. The same results are always on disk, so a failure here costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger

log = logging.getLogger(__name__)


def log_to_wandb(loggers: Iterable[Logger], results: dict[str, Any]) -> None:
    """Log figures (Matplotlib or Plotly), data frames and numbers by name."""
    import wandb
    from matplotlib.figure import Figure

    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        try:
            content = {}
            for name, value in results.items():
                if isinstance(value, pd.DataFrame):
                    value = wandb.Table(dataframe=value.astype(object).where(value.notna(), None))
                elif isinstance(value, Figure):
                    value = wandb.Image(value)
                content[name] = value
            logger.experiment.log(content)
        except Exception as error:
            log.warning(
                "W&B did not take %s (%s). The same results are in the run's folder.", ", ".join(results), error
            )
