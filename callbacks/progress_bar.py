"""The progress bar, whose epochs count from 1 like those of all messages, tables and curves."""

from __future__ import annotations

from lightning.pytorch.callbacks import RichProgressBar


class EpochBar(RichProgressBar):
    """Lightning's progress bar, which alone would count epochs from 0."""

    def _get_train_description(self, current_epoch: int) -> str:
        text = f"Epoch {current_epoch + 1}"
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 0:
            text += f"/{self.trainer.max_epochs}"
        return text.ljust(len(self.validation_description))  # so that it does not flicker
