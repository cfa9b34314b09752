"""Handing results to W&B, where there is one. The same results are always on disk, so a failure here costs nothing.

Frames of clips show people. They leave this machine only where `WandbOptions.upload_media` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def log_to_wandb(loggers: Iterable[Logger], results: Mapping[str, Any]) -> None:
    """Log results by name; what shows frames of clips only where the logger's ``upload_media`` is set.

    Args:
        loggers: The run's loggers; those that are not W&B's are passed over.
        results: Numbers, data frames, figures (Matplotlib or Plotly), and paths of ``.png`` and ``.mp4`` files, which
            count as frames of clips. So do Matplotlib figures that hold a picture in colours.
    """
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        try:
            allowed = bool(getattr(logger, "upload_media", False))
            content = {name: _for_wandb(value) for name, value in results.items() if allowed or not _is_media(value)}
            if content:
                logger.experiment.log(content)
        except Exception as error:
            log.warning(
                "W&B did not take %s (%s). The same results are in the run's folder.", ", ".join(results), error
            )


def _for_wandb(value: Any) -> Any:
    import wandb

    if isinstance(value, pd.DataFrame):
        return wandb.Table(dataframe=value.astype(object).where(value.notna(), None))
    if isinstance(value, Figure):
        return wandb.Image(value)
    if isinstance(value, Path):
        return wandb.Video(str(value), format="mp4") if value.suffix == ".mp4" else wandb.Image(str(value))
    return value


def _is_media(value: Any) -> bool:
    """Whether a value shows frames; a heat map's image has one number per cell and no colours of its own."""
    if isinstance(value, Figure):
        return any(image.get_array().ndim == 3 for axes in value.axes for image in axes.images)  # type: ignore[union-attr]
    return not isinstance(value, (int, float, str, pd.DataFrame)) and not _is_plotly(value)


def _is_plotly(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "plotly" and not getattr(value.layout, "images", ())
