"""What runs after the fit: on the best weights, in the run's folder, by every process of the job together."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from datamodules.clip_data_module import ClipDataModule
from lightning_modules.video_classifier import VideoClassifier
from sightline.backbones import Backbone, Reducer
from sightline.backbones.stored_kernels import settle_kernels
from sightline.checkpoints.files import read_checkpoint
from sightline.checkpoints.trained import model_of, trained_checkpoint
from sightline.export.evaluation import predict_split
from sightline.pruning.targets import UnmetTargetsError
from sightline.relevance.race_settings import RaceSettings
from sightline.run.csv_table import read_table
from sightline.run.paths import RunFolder
from sightline.run.ranks import Ranks
from sightline.types import ClipBatch

# Clips on which multiply-adds and kept tokens are counted where they may depend on the clip.
COUNTED_CLIPS = 16

log = logging.getLogger(__name__)

Sampling = Literal["full", "racing"]


@dataclass(frozen=True)
class Context:
    """What an analysis works on.

    Attributes:
        folder: The run's folder.
        split: The split to score (``train`` decides what is pruned).
        module: The classifier that was trained; its weights are the last ones.
        backbone: One of its own with the weights to analyse, in evaluation mode, on this process's device.
        checkpoint: Where these weights come from.
        data: The data module.
        ranks: The processes that share the work.
        loggers: The run's loggers.
        overwrite: Replace results that were made from other weights or data.
        sampling: Overrides what the ablations were set up with; None leaves it.
        race: What to race for where that is ``racing``.
    """

    folder: Path
    split: str
    module: VideoClassifier
    backbone: Backbone
    checkpoint: str
    data: ClipDataModule
    ranks: Ranks
    loggers: list[Logger]
    overwrite: bool = False
    sampling: Sampling | None = None
    race: RaceSettings = field(default_factory=RaceSettings)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    @property
    def relevance_folder(self) -> Path:
        return self.run.relevance(self.split).path

    def batches(self, split: str, places: list[int], batch_size: int | None) -> Iterator[ClipBatch]:
        """Yield the clips at these places of a split, and count those that cannot be read."""
        clips = self.data.clips(split)
        unreadable = self.data.bad_clips(split)
        for batch in self.data.evaluation_loader([clips[i] for i in places], batch_size):
            unreadable.add(batch["unreadable"])
            yield batch

    def some_clips(self, split: str, count: int) -> Tensor:
        """Return clips from all over a split, uint8 (B, 3, T, H, W); fewer than ``count`` where some are unreadable.

        Raises:
            ValueError: If none can be read.
        """
        total = len(self.data.clips(split))
        places = sorted({place * total // count for place in range(count)}) if total else []
        found = [batch["clip"] for batch in self.batches(split, places, 1) if batch["sample_id"]]
        if not found:
            raise ValueError(f"No clip of the {split} split could be read. See the list of unreadable clips.")
        return torch.cat(found)


def predict_clips(
    context: Context,
    model: Backbone,
    split: str,
    name: str,
    batch_size: int | None,
    reducer: Reducer | None = None,
    look: Callable[[Tensor], Tensor] | None = None,
) -> pd.DataFrame | None:
    """Predict a whole split with any model; on disk as tables/predictions/<name>.csv, returned on rank 0 alone.

    Args:
        context: The run.
        model: The model.
        split: The clips.
        name: Of the file. Of one name, ``look`` is always the same.
        batch_size: Clips per batch; the data module's if None.
        reducer: The token reduction to run with.
        look: What is made of clips (B, 3, T, H, W) before the model sees them; nothing if not given.
    """

    def batches(places: list[int]) -> Iterator[ClipBatch]:
        for batch in context.batches(split, places, batch_size):
            if look is not None:
                batch["clip"] = look(batch["clip"])
            yield batch

    return predict_split(
        model,
        [clip.sample_id for clip in context.data.clips(split)],
        batches,
        context.run.predictions(name),
        context.ranks,
        {"model": name, "data_sha256": context.data.data_hash(split)},
        reducer,
    )


class Analysis(L.Callback, ABC):
    """A step after the fit. It also runs alone, on a finished run's folder, as the subcommand it belongs to.

    Attributes:
        command: The subcommand.
        takes_tokens: Whether it can work on a model that was trained to run with fewer tokens; others look at the
            backbone as it runs with all of them, which would be another model.
    """

    command: ClassVar[str]
    takes_tokens: ClassVar[bool] = False

    @abstractmethod
    def analyse(self, context: Context) -> None:
        """Do the work; called by every process of the job."""

    def check(self, module: VideoClassifier) -> None:
        """Raise ValueError where the step cannot work on a model."""
        if module.tokens is not None and not self.takes_tokens:
            raise ValueError(
                f"{type(self).__name__} works on models that run with all tokens, but this one runs with "
                f"{module.tokens.label}. Leave the callback or the command out, or use a model without tokens."
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # What cannot be done is said before the training, not after it.
        if stage == "fit" and isinstance(pl_module, VideoClassifier):
            self.check(pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(trainer.default_root_dir)
        try:
            # What an interrupted run scored before it was resumed is of other weights.
            self.analyse(make_context(trainer, pl_module, folder, overwrite=True))
        except UnmetTargetsError as error:
            # The fit did what it should, and what follows, such as the report, shows which depths were tried.
            if trainer.is_global_zero:
                log.warning("%s", error)
        except Exception as error:
            raise RuntimeError(
                f"{type(self).__name__} failed after the fit: {error}\nThe trained model is safe in "
                f"{RunFolder(folder).checkpoints}. Continue with: python train.py {self.command} --run {folder}"
            ) from error


def make_context(
    trainer: L.Trainer,
    module: L.LightningModule,
    folder: Path,
    data: ClipDataModule | None = None,
    checkpoint: str | None = None,
    split: str = "train",
    overwrite: bool = False,
    sampling: Sampling | None = None,
    race: RaceSettings | None = None,
) -> Context:
    """Gather what an analysis needs.

    Args:
        trainer: The trainer, after a fit or set up for an analysis alone.
        module: The classifier.
        folder: The run's folder.
        data: The data module; the trainer's if not given.
        checkpoint: The weights to analyse; by default the best of the run.
        split: The split to score.
        overwrite: Replace results that were made from other weights or data.
        sampling: Overrides what the ablations were set up with.
        race: What to race for where that is ``racing``.
    """
    data = data or getattr(trainer, "datamodule", None)
    if not isinstance(module, VideoClassifier) or not isinstance(data, ClipDataModule):
        raise TypeError(
            f"An analysis needs a VideoClassifier and a ClipDataModule, got {type(module).__name__} and "
            f"{type(data).__name__}."
        )
    check_split(folder, data)
    checkpoint = checkpoint or str(trained_checkpoint(RunFolder(folder)))
    content = dict(read_checkpoint(checkpoint))
    module.on_load_checkpoint(content)  # so that its structure is that of the weights to analyse
    # In float32, whatever precision the training had: scores and rankings need it.
    backbone = model_of(content, checkpoint).to(trainer.strategy.root_device)
    return Context(
        folder,
        split,
        module,
        backbone,
        checkpoint,
        data,
        ranks_of(trainer),
        trainer.loggers,
        overwrite,
        sampling,
        race or RaceSettings(),
    )


def ranks_of(trainer: L.Trainer) -> Ranks:
    """Return the processes of a trainer whose environment is set up."""
    strategy = trainer.strategy
    return Ranks(trainer.global_rank, trainer.world_size, lambda flag: strategy.reduce_boolean_decision(flag, all=True))


def settle_kernels_of(trainer: L.Trainer) -> None:
    """Let all processes of a trainer run linear layers as its run stored it; on a GPU nothing is chosen."""
    if trainer.strategy.root_device.type == "cpu":
        settle_kernels(RunFolder(Path(trainer.default_root_dir)).kernels, ranks_of(trainer))


def check_split(folder: Path, data: ClipDataModule) -> None:
    """Raise ValueError where the data is now divided otherwise than when the run was trained.

    Without this, clips that the model was trained on could be among those that test it.
    """
    path = RunFolder(folder).splits
    if not path.is_file():
        return
    columns = ["sample_id", "label", "split"]
    then = read_table(path, dtype=str, keep_default_na=False)[columns]
    now = data.split_table()[columns].astype(str)
    changed = set(then.itertuples(index=False, name=None)) ^ set(now.itertuples(index=False, name=None))
    if changed:
        names = sorted({row[0] for row in changed})
        raise ValueError(
            f"The data is not what {folder} was trained on: {len(names)} clips were added, removed, or have another "
            f"label or split than in {path}, e.g. {names[0]}. Restore the annotations, or train a new run."
        )


def check_unseen(folder: Path, data: ClipDataModule) -> None:
    """Raise ValueError where clips that a run was trained on would validate or test a model that starts from it."""
    path = RunFolder(folder).splits
    if not path.is_file():
        return
    then, now = read_table(path, dtype=str, keep_default_na=False), data.split_table()
    trained = then.loc[then["split"] == "train", "sample_id"]
    seen = now.loc[now["sample_id"].isin(trained) & (now["split"] != "train"), "sample_id"]
    if len(seen):
        raise ValueError(
            f"{len(seen)} clips that {folder} was trained on would now validate or test, e.g. {seen.iloc[0]}, so "
            "accuracies would be too high. Divide the data as there (the same annotations and data seed)."
        )


def device_name(device: torch.device) -> str:
    """Return what a device is called in tables: the GPU's name, or CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def timing_name(backbone: Backbone) -> str:
    """Name a measurement of times that begins now, by date and device."""
    device = device_name(next(backbone.parameters()).device)
    return f"{datetime.now(UTC).isoformat(timespec='seconds')} on {device}"
