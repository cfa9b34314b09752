"""Which weights are kept: after every epoch the last ones, however the validation goes."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from callbacks import RunCheckpoint


class Stalling(L.LightningModule):
    """Its validation accuracy is best in its second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.linear(batch[0]).square().mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/top1", [0.5, 0.7, 0.6, 0.6][self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watcher(L.Callback):
    """Notes at the begin of every epoch how many steps the last checkpoint has seen by then."""

    def __init__(self) -> None:
        self.steps: list[int | None] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        self.steps.append(steps_of(path) if path.exists() else None)


def steps_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize("validates", [True, False])
def test_the_last_checkpoint_is_that_of_the_last_whole_epoch(tmp_path: Path, validates: bool):
    watcher = Watcher()
    trainer = L.Trainer(
        default_root_dir=tmp_path, max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[RunCheckpoint(), watcher],
        limit_val_batches=None if validates else 0,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(torch.ones(6, 1)), batch_size=2)
    trainer.fit(Stalling(), loader, loader)
    assert watcher.steps == [None, 3, 6, 9]
    folder = tmp_path / "checkpoints"
    assert steps_of(folder / "last.ckpt") == 12
    assert {path.name for path in folder.iterdir()} == ({"best.ckpt", "last.ckpt"} if validates else {"last.ckpt"})
    if validates:
        assert steps_of(folder / "best.ckpt") == 6
