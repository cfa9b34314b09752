"""The base of every data module: annotation rows become clips, clips become batches, and ranks share them out."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import pandas as pd
import torch
from torch.utils.data import DataLoader

from datamodules.augmentation import Augmentation, augment
from datamodules.bad_clip_record import BadClipRecord
from datamodules.bad_clips import BadClips
from datamodules.clip_lists import check_clips, clip_table, clips_digest
from datamodules.dataset import SPLITS, ClipDataset
from datamodules.limit import limit_per_class
from datamodules.loading import clip_loader
from datamodules.sharding import BalancedSampler, EpochSampler, ShardSampler
from sightline.types import ClipBatch, ClipTruth
from sightline.video.clips import Clip, ClipSettings
from sightline.video.decoding import Decoder
from sightline.video.frame_cache import FrameCache

log = logging.getLogger(__name__)


class ClipDataModule(L.LightningDataModule):
    """Batches of labelled video clips (`ClipBatch`); a subclass only says which clips there are (`read_clips`)."""

    def __init__(
        self,
        frames: int = 16,
        size: int = 224,
        short_side: int | None = None,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        max_bad_fraction: float = 0.01,
        train_crop: Literal["random", "center"] = "random",
        flip_probability: float = 0.0,
        random_resized_crop: list[float] | None = None,
        color_jitter: float = 0.0,
        rand_augment: list[int] | None = None,
        antialias: bool = True,
        balance_classes: bool = False,
        limit_per_class: int | None = None,
        test_clips: int = 1,
        test_crops: Literal[1, 3] = 1,
        cache_dir: str | None = None,
        cache_gb: float = 20.0,
        decoder: Decoder = "pyav",
    ) -> None:
        """Store the settings; annotations are read when they are first needed.

        Args:
            frames: Frames per clip, spread evenly over it. A clip with fewer frames repeats some.
            size: Height and width of the square that is cut out.
            short_side: Length to which a frame's shorter side is resized before cutting; by default size * 256 / 224.
            batch_size: Clips per batch and rank.
            num_workers: Processes that decode, per rank.
            seed: Fixes the order, the random offsets and crops, and every split that is made here.
            max_bad_fraction: Share of a split's clips that may be unreadable before the run stops (one always may).
            train_crop: Where training cuts the square: at a random place (the same in all frames) or in the centre.
            flip_probability: How often training mirrors a clip. Left and right matter in a cabin, so 0 by default.
            random_resized_crop: Smallest and largest share, e.g. [0.5, 1.0], of the square of short_side that training
                cuts out, with a side ratio of 3:4 to 4:3, and resizes to size. None by default.
            color_jitter: How far training changes brightness, contrast and saturation: by factors between 1 minus and
                1 plus this, e.g. 0.4. None by default.
            rand_augment: RandAugment in training as [operations, magnitude], e.g. [2, 9]; magnitudes go up to 30. None
                by default. It rotates, shears and shifts as well.
            antialias: Whether resizing smooths before it shrinks. Most public checkpoints were trained without.
            balance_classes: Whether a training epoch, which stays as long, shows every class equally often. Else clips
                come once each.
            limit_per_class: Train on at most this many clips of every class, from as many groups as there are; seed
                fixes which. Validation and test clips all stay, so that accuracies can be compared.
            test_clips: Views in time whose probabilities test and predict average. Each covers the whole clip, with
                frames between those of the others. Validation, ablation and pruned models' tests take one view.
            test_crops: Views in space, likewise: 1, the centre, or 3 along the frame's longer side.
            cache_dir: Folder that keeps the frames which evaluation and ablation read, for the next time; by default
                none. Runs may share it. Changed files and settings are noticed, if files change their size or time too.
            cache_gb: Size in GB at which what was not used for longest is deleted from the cache.
            decoder: What decodes videos: pyav, or torchcodec where it is installed with the FFmpeg it needs. Files
                of which torchcodec gives other frames are read with pyav, and a warning says so.
        """
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"Expected batch_size >= 1 and num_workers >= 0, got batch_size={batch_size} "
                f"and num_workers={num_workers}."
            )
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"Expected max_bad_fraction between 0 and 1, got {max_bad_fraction}.")
        if limit_per_class is not None and limit_per_class < 1:
            raise ValueError(f"Expected limit_per_class >= 1, or null for all clips, got {limit_per_class}.")
        if cache_gb <= 0:
            raise ValueError(f"Expected cache_gb > 0, got {cache_gb}. Leave cache_dir out to keep nothing.")
        self.cache = None if cache_dir is None else FrameCache(cache_dir, int(cache_gb * 1e9))
        self.settings = ClipSettings(
            frames=frames,
            size=size,
            short_side=round(size * 256 / 224) if short_side is None else short_side,
            antialias=antialias,
            train_crop=train_crop,
            test_clips=test_clips,
            test_crops=test_crops,
            decoder=decoder,
        )
        augmentation = Augmentation(
            flip_probability,
            None if random_resized_crop is None else tuple(random_resized_crop),  # type: ignore[arg-type]
            color_jitter,
            None if rand_augment is None else tuple(rand_augment),  # type: ignore[arg-type]
        )
        if augmentation.random_resized_crop is not None:
            self.settings = replace(self.settings, train_size=self.settings.short_side)
        self._augmentations = augmentation.steps(size, antialias)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.max_bad_fraction = max_bad_fraction
        self.balance_classes = balance_classes
        self.limit_per_class = limit_per_class
        self._bad_clips: dict[str, BadClips] = {}
        self._bad_record: BadClipRecord | None = None

    # ------------------------------------------------------------------ what there is

    @abstractmethod
    def read_clips(self) -> tuple[list[str], list[Clip]]:
        """Read the annotations: the class names in the order of the labels, and the clips of all splits.

        Called once, when a name, a count or a clip is first asked for. It must give the same answer on every rank.
        """

    def stated_classes(self, clip: Clip) -> Mapping[str, str]:
        """Which class the files themselves give a clip, by where they say so: ``{"folder": "Archery"}``.

        Nothing unless a subclass knows its layout. `check_data` compares the names with the label, without case.
        """
        return {}

    def truth(self, clip: Clip, masks: bool = False) -> ClipTruth | None:
        """Where things are in a clip as evaluation sees it, and when its action happens; None where nothing is known.

        A subclass that knows gives it for every clip. `sightline.video.boxes` reads annotations of any data from a CSV.

        Args:
            clip: The clip.
            masks: Whether to tell which pixels things cover as well, which takes longer; a subclass may not know.
        """
        return None

    @property
    def can_train(self) -> bool:
        """Whether there are training clips of every class, as there must be unless a subclass says otherwise."""
        return True

    @cached_property
    def _annotations(self) -> tuple[list[str], dict[str, list[Clip]]]:
        class_names, clips = self.read_clips()
        check_clips(class_names, clips, source=type(self).__name__, trains=self.can_train)
        parts = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
        if self.limit_per_class is not None:
            parts["train"] = limit_per_class(parts["train"], self.limit_per_class, self.seed)
        return class_names, parts

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return self._annotations[0]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def frames(self) -> int:
        """Frames per clip."""
        return self.settings.frames

    @property
    def size(self) -> int:
        """Height and width of a clip in pixels."""
        return self.settings.size

    def sampling(self) -> dict[str, Any]:
        """How evaluation takes its input from a video; goes into every exported model."""
        # torchcodec may run on another FFmpeg than PyAV does, and so differ from it by rounding.
        keys = ["frames", "size", "short_side", "antialias", *["decoder"] * (self.settings.decoder != "pyav")]
        return {key: asdict(self.settings)[key] for key in keys}

    def clips(self, split: str) -> list[Clip]:
        """The clips of ``train``, ``val`` or ``test`` (maybe none), always in the same order."""
        if split not in SPLITS:
            raise ValueError(f"Expected a split out of {', '.join(SPLITS)}, got {split!r}.")
        return list(self._annotations[1][split])

    def split_table(self) -> pd.DataFrame:
        """Which clip is in which split: one row per clip, the content of a run's ``splits.csv``.

        Where clips were cut from longer segments, a last column says from which.
        """
        return clip_table([clip for split in SPLITS for clip in self.clips(split)], self.class_names)

    def data_hash(self, split: str) -> str:
        """A digest of what evaluation reads from a split; the folder that the files lie in does not enter it."""
        return clips_digest(self.clips(split), self.class_names, self.sampling())

    # ------------------------------------------------------------------ loaders

    def dataset(self, split: str, training: bool = False, views: bool = False) -> ClipDataset:
        """The clips of a split as a dataset, cut at random (``training``), or always in the same one or more views."""
        return ClipDataset(
            self.clips(split), self.settings, training=training, seed=self.seed, views=views, cache=self.cache
        )

    def evaluation_loader(
        self, clips: Sequence[Clip], batch_size: int | None = None, views: bool = False
    ) -> DataLoader:
        """A loader of exactly these clips, in this order, on whichever rank asks; in one view unless told otherwise."""
        dataset = ClipDataset(clips, self.settings, training=False, seed=self.seed, views=views, cache=self.cache)
        return clip_loader(dataset, self.batch_size if batch_size is None else batch_size, self.num_workers)

    def train_dataloader(self) -> DataLoader:
        """The training clips, reshuffled and cut anew in every epoch; equally many on every rank.

        Its batches are not augmented yet: see `augment`.
        """
        dataset = self.dataset("train", training=True)
        if not len(dataset):
            raise ValueError(
                f"Expected {type(self).__name__} to have training clips, got none: "
                "check that the annotations name clips of the train split."
            )
        rank, world = self._rank_and_world()
        if self.balance_classes:
            sampler: EpochSampler = BalancedSampler([clip.label for clip in dataset.clips], rank, world, self.seed)
        else:
            sampler = EpochSampler(dataset, rank, world, self.seed)
        return clip_loader(dataset, self.batch_size, self.num_workers, sampler, persistent=True)

    def val_dataloader(self) -> DataLoader | list:
        """This rank's part of the validation clips; no loader where there are none."""
        return self._shard_loader("val") if self.clips("val") else []

    def test_dataloader(self) -> DataLoader:
        """This rank's part of the test clips, in all views."""
        if not self.clips("test"):
            raise ValueError(
                f"Expected {type(self).__name__} to have test clips, got none: "
                "check that the annotations name clips of the test split."
            )
        return self._shard_loader("test", views=True)

    def predict_dataloader(self) -> DataLoader:
        """This rank's part of the test clips, in all views."""
        return self.test_dataloader()

    def _shard_loader(self, split: str, views: bool = False) -> DataLoader:
        dataset = self.dataset(split, views=views)
        sampler = ShardSampler(dataset, *self._rank_and_world())
        return clip_loader(dataset, self.batch_size, self.num_workers, sampler, persistent=True)

    def _rank_and_world(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    # ------------------------------------------------------------------ augmentation

    def augment(self, batch: ClipBatch) -> ClipBatch:
        """Do to a batch, on the device where it is, what training does to it; one of evaluation stays as it is."""
        if batch["seed"]:
            batch["clip"] = augment(batch["clip"], batch["seed"], self._augmentations)
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment training's batches on the model's device."""
        # A model summary's example input comes here too: only our own batches are dictionaries.
        return self.augment(cast(ClipBatch, batch)) if isinstance(batch, dict) else batch

    # ------------------------------------------------------------------ unreadable clips

    def bad_clips(self, split: str) -> BadClips:
        """The unreadable clips met in a split so far; outside the Trainer feed it with ``batch["unreadable"]``."""
        if split not in self._bad_clips:
            self._bad_clips[split] = BadClips(split, len(self.clips(split)), self.max_bad_fraction, self._bad_record)
        return self._bad_clips[split]

    def record_bad_clips(self, path: Path, rank: int = 0) -> None:
        """Count unreadable clips anew, those of all processes together, and list them in a CSV file.

        Every process calls this, and waits for the first one before it reads clips.
        """
        self._bad_record, self._bad_clips = BadClipRecord(path, rank), {}
        if rank == 0:
            self._bad_record.clear()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Log and count the batch's unreadable clips (in the main process, where the run can be stopped)."""
        # A model summary sends its example input this way too: only our own batches are dictionaries.
        if self.trainer is not None and isinstance(batch, dict) and batch.get("unreadable"):
            split = "train" if self.trainer.training else "test"
            if self.trainer.validating or self.trainer.sanity_checking:
                split = "val"
            self.bad_clips(split).add(batch["unreadable"])
        return batch

    def teardown(self, stage: str) -> None:
        """Say at the end which clips could not be read."""
        self.report_bad_clips()

    def report_bad_clips(self) -> None:
        """Log every clip that could not be read; where processes count together the first one does so for all."""
        if self._bad_record is not None and self._bad_record.rank > 0:
            return
        splits = self._bad_clips if self._bad_record is None else self._bad_record.splits()
        for split in splits:
            if summary := self.bad_clips(split).summary():
                log.warning(summary)
