"""Handing results to the loggers that take them. The same results are always on disk, so a failure costs nothing.

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

MOST_ROWS = 200
"""Of a table in TensorBoard, which shows text; the whole is on disk."""


def log_results(loggers: Iterable[Logger], results: Mapping[str, Any]) -> None:
    """Log results by name; what shows frames of clips only where the logger's ``upload_media`` is set.

    W&B takes everything. A logger whose experiment has TensorBoard's ``add_figure`` and ``add_text`` takes figures,
    numbers and tables. Any other is left alone.

    Args:
        loggers: The run's loggers.
        results: Numbers, data frames, figures (Matplotlib or Plotly), and paths of ``.png`` and ``.mp4`` files, which
            count as frames of clips. So do Matplotlib figures that hold a picture in colours.
    """
    for logger in loggers:
        allowed = bool(getattr(logger, "upload_media", False))
        content = {name: value for name, value in results.items() if allowed or not _is_media(value)}
        if not content:
            continue
        try:
            if isinstance(logger, WandbLogger):
                logger.experiment.log({name: _for_wandb(value) for name, value in content.items()})
                continue
            writer = getattr(logger, "experiment", None)
            if hasattr(writer, "add_figure") and hasattr(writer, "add_text"):
                for name, value in content.items():
                    _add(writer, name, value)
        except Exception as error:
            log.warning(
                "%s did not take %s (%s). The same results are in the run's folder.",
                type(logger).__name__,
                ", ".join(content),
                error,
            )


def _add(writer: Any, name: str, value: Any) -> None:
    """Hand one result to a writer as TensorBoard's; what it has no place for is left out."""
    if isinstance(value, Figure):
        writer.add_figure(name, value, close=False)
    elif isinstance(value, pd.DataFrame):
        writer.add_text(name, _as_markdown(value))
    elif isinstance(value, int | float):
        writer.add_scalar(name, value)
    elif isinstance(value, str):
        writer.add_text(name, value)


def _as_markdown(table: pd.DataFrame) -> str:
    rows = [map(str, table.columns), ["---"] * table.shape[1]]
    rows += [["" if pd.isna(cell) else str(cell) for cell in row] for row in table.head(MOST_ROWS).to_numpy()]
    text = "\n".join(f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows)
    more = len(table) - MOST_ROWS
    return text if more <= 0 else f"{text}\n\n{more} more rows are in the run's folder."


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
