"""W&B without risk: online when logged in, offline otherwise, and a run goes on when W&B fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


@dataclass
class WandbOptions:
    """Where W&B gets the run.

    Args:
        mode: auto is online when logged in and offline otherwise; disabled writes nothing for W&B.
        project: Name of the project.
        entity: User or team; the account's default if not given.
        upload_media: Also upload pictures and videos that show frames of clips. Faces are personal data: without it,
            W&B gets numbers, tables and figures without frames.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "sightline"
    entity: str | None = None
    upload_media: bool = False


class CarefulWandbLogger(WandbLogger):
    """A WandbLogger whose failures are reported once and never stop a run.

    Attributes:
        upload_media: Whether frames of clips may be logged, see `log_results`.
    """

    _failed = False
    upload_media = False

    def _carefully(self, action: Callable[[], Any]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            log.warning("W&B failed (%s); the run continues without it. All results are in the run's folder.", error)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._carefully(lambda: super(CarefulWandbLogger, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._carefully(lambda: super(CarefulWandbLogger, self).log_hyperparams(params))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._carefully(lambda: super(CarefulWandbLogger, self).finalize(status))

    @rank_zero_only
    def abandon(self) -> None:
        """Stop writing, because the run's folder is about to be deleted."""
        self._carefully(lambda: self.experiment.finish(exit_code=1))
        self._failed = True


def wandb_logger(options: WandbOptions, folder: Path) -> CarefulWandbLogger | None:
    """Make the W&B logger of a run, or None where it is disabled or cannot be had at all.

    Args:
        options: What the user asked for.
        folder: The run's folder; W&B keeps its files in ``wandb/`` there.
    """
    if options.mode == "disabled" or os.environ.get("WANDB_MODE") == "disabled":
        return None
    _set_up()
    attempts = [False, True] if _wants_online(options) else [True]
    for offline in attempts:
        logger = CarefulWandbLogger(
            name=folder.name,
            save_dir=str(folder),
            project=options.project,
            entity=options.entity,
            offline=offline,
            # Lightning only sets WANDB_MODE, which W&B does not read again once it looked for a login.
            mode="offline" if offline else "online",
        )
        try:
            logger.experiment  # noqa: B018  (starts the run; other ranks get a dummy)
        except Exception as error:
            log.warning("W&B could not start %s (%s).", "offline" if offline else "online", error)
            continue
        logger.upload_media = options.upload_media
        _say_where(logger, folder, offline)
        return logger
    log.warning("The run continues without W&B. All results are in %s.", folder)
    return None


def _set_up() -> None:
    """Let W&B read its settings now: what Lightning passes on is warned of before it does so by itself."""
    import wandb

    try:
        wandb.setup()
    except Exception as error:  # as everywhere here: a run goes on without W&B
        log.warning("W&B could not be set up (%s).", error)


@rank_zero_only
def _say_where(logger: CarefulWandbLogger, folder: Path, offline: bool) -> None:
    """Say in one line what W&B itself says in several."""
    if offline:
        log.info("W&B: offline, in %s; `wandb sync %s/wandb/*run-*` uploads it.", folder, folder)
    else:
        log.info("W&B: %s", getattr(logger.experiment, "url", None) or f"online, project {logger.name}")


def _wants_online(options: WandbOptions) -> bool:
    if options.mode != "auto":
        return options.mode == "online"
    if os.environ.get("WANDB_MODE") == "offline":
        return False
    import wandb

    try:
        # False without a key; with a key and no network it raises.
        return bool(wandb.login(prompt=False))  # type: ignore[call-arg]
    except Exception as error:
        log.warning("W&B cannot be reached (%s); working offline.", error)
        return False
