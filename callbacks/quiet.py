"""What other libraries print that a user of Sightline can do nothing about is left out; all else stays."""

from __future__ import annotations

import logging
import os
import re
import warnings

# Advertisements, and what is said of hardware that is not there or of settings that do not matter here.
NOISE = re.compile(
    r"Tip: |GPU available: False|TPU available|HPU available|Seed set to|Loading `train_dataloader` to estimate|"
    r"Restored all states from the checkpoint|Loaded model weights from the checkpoint|"
    r"`Trainer\.fit` stopped: `max_epochs="
)
LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.utilities.rank_zero",
)
CHATTY = ("onnx_ir", "onnxscript")  # count what they tidy up in a program that is written
WARNINGS = (
    r".*logging interval Trainer\(log_every_n_steps",  # all that is logged here is logged once an epoch
    r"Checkpoint directory .* exists and is not empty",  # as it does when a run is resumed
    r"The dirpath has changed from",  # as it does when a run's folder was moved
    r".*LeafSpec",
    r"The ``compute`` method of metric .* was called before the ``update`` method",  # no clip could be read
)


def _matters(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or NOISE.search(record.getMessage()) is None


def be_quiet() -> None:
    """Leave out other libraries' noise from now on; WANDB_SILENT and Python's -W still have the last word."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if _matters not in logger.filters:
            logger.addFilter(_matters)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(lightning|torch|torchmetrics|wandb|timm)\b")
    os.environ.setdefault("WANDB_SILENT", "true")
