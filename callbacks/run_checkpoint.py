"""The checkpoints of a run: the best by validation accuracy and the last, in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_modules.finite_losses import NotFiniteError
from sightline.checkpoints.finite import describe_not_finite
from sightline.run.paths import RunFolder


class RunCheckpoint(ModelCheckpoint):
    """Keeps checkpoints/best.ckpt and checkpoints/last.ckpt."""

    def __init__(self, monitor: str = "val/top1", mode: Literal["max", "min"] = "max", every_n_epochs: int = 1) -> None:
        """Set up what counts as best.

        Args:
            monitor: Logged quantity that decides which weights are best.
            mode: Whether more or less of it is better.
            every_n_epochs: How often to look.
        """
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            every_n_epochs=every_n_epochs,
            enable_version_counter=False,
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # The folder is known only now; Lightning would otherwise follow the logger's.
        self.dirpath = str(RunFolder(Path(trainer.default_root_dir)).checkpoints)
        super().setup(trainer, pl_module, stage)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        # A step can leave weights that are not finite although its loss was; nothing good is overwritten with them.
        if told := describe_not_finite(trainer.lightning_module.state_dict()):
            raise NotFiniteError(
                f"After epoch {trainer.current_epoch + 1}, step {trainer.global_step}, the weights are not finite: "
                f"{told}. They were not saved; checkpoints/last.ckpt, where there is one, is of the last epoch before. "
                "Lower --model.learning_rate or set --trainer.gradient_clip_val."
            )
        super()._save_checkpoint(trainer, filepath)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        # Lightning writes the last checkpoint only where the best one changed; resuming must not lose an epoch.
        if not self._should_skip_saving_checkpoint(trainer):  # which it does where this step has been saved
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
