"""The base of every data module: annotation rows become clips, clips become batches, and ranks share them out."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pandas as pd
import torch
from torch.utils.data import DataLoader

from datamodules.bad_clips import BadClips
from datamodules.clips import SPLITS, Clip, ClipDataset, ClipSettings, collate
from datamodules.frame_cache import FrameCache
from datamodules.sharding import EpochSampler, ShardSampler

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
        antialias: bool = True,
        cache_dir: str | None = None,
        cache_gb: float = 20.0,
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
            antialias: Whether resizing smooths before it shrinks. Most public checkpoints were trained without.
            cache_dir: Folder that keeps the frames which evaluation and ablation read, for the next time; by default
                none. Runs may share it. Changed files and settings are noticed, if files change their size or time too.
            cache_gb: Size in GB at which what was not used for longest is deleted from the cache.
        """
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"Expected batch_size >= 1 and num_workers >= 0, got batch_size={batch_size} "
                f"and num_workers={num_workers}."
            )
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"Expected max_bad_fraction between 0 and 1, got {max_bad_fraction}.")
        if cache_gb <= 0:
            raise ValueError(f"Expected cache_gb > 0, got {cache_gb}. Leave cache_dir out to keep nothing.")
        self.cache = None if cache_dir is None else FrameCache(cache_dir, int(cache_gb * 1e9))
        self.settings = ClipSettings(
            frames=frames,
            size=size,
            short_side=round(size * 256 / 224) if short_side is None else short_side,
            antialias=antialias,
            train_crop=train_crop,
            flip_probability=flip_probability,
        )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.max_bad_fraction = max_bad_fraction
        self._bad_clips: dict[str, BadClips] = {}

    # ------------------------------------------------------------------ what there is

    @abstractmethod
    def read_clips(self) -> tuple[list[str], list[Clip]]:
        """Read the annotations: the class names in the order of the labels, and the clips of all splits.

        Called once, when a name, a count or a clip is first asked for. It must give the same answer on every rank.
        """

    @property
    def can_train(self) -> bool:
        """Whether there are training clips of every class, as there must be unless a subclass says otherwise."""
        return True

    @cached_property
    def _annotations(self) -> tuple[list[str], dict[str, list[Clip]]]:
        class_names, clips = self.read_clips()
        _check_clips(class_names, clips, source=type(self).__name__, trains=self.can_train)
        return class_names, {split: [clip for clip in clips if clip.split == split] for split in SPLITS}

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
        return {key: asdict(self.settings)[key] for key in ("frames", "size", "short_side", "antialias")}

    def clips(self, split: str) -> list[Clip]:
        """The clips of ``train``, ``val`` or ``test`` (maybe none), always in the same order."""
        if split not in SPLITS:
            raise ValueError(f"Expected a split out of {', '.join(SPLITS)}, got {split!r}.")
        return list(self._annotations[1][split])

    def split_table(self) -> pd.DataFrame:
        """Which clip is in which split: one row per clip, the content of a run's ``splits.csv``.

        Where clips were cut from longer segments, a last column says from which.
        """
        rows = [
            (clip.sample_id, clip.path, self.class_names[clip.label], clip.group, clip.split, clip.segment)
            for split in SPLITS
            for clip in self.clips(split)
        ]
        table = pd.DataFrame(rows, columns=["sample_id", "path", "label", "group", "split", "segment"])
        return table if (table["segment"] != "").any() else table.drop(columns="segment")

    def data_hash(self, split: str) -> str:
        """A digest of what evaluation reads from a split; the folder that the files lie in does not enter it."""
        rows = [
            # Frames only where they bound a clip: the digests of other data stay what they were.
            (clip.sample_id, clip.label, clip.group, Path(clip.path).name, clip.start, clip.end)
            + (clip.frame_range or ())
            for clip in self.clips(split)
        ]
        content = {"settings": self.sampling(), "class_names": self.class_names, "clips": rows}
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    # ------------------------------------------------------------------ loaders

    def dataset(self, split: str, training: bool = False) -> ClipDataset:
        """The clips of a split as a dataset, cut at random (``training``) or always in the same way."""
        return ClipDataset(self.clips(split), self.settings, training=training, seed=self.seed, cache=self.cache)

    def evaluation_loader(self, clips: Sequence[Clip], batch_size: int | None = None) -> DataLoader:
        """A loader of exactly these clips, in this order, on whichever rank asks."""
        dataset = ClipDataset(clips, self.settings, training=False, seed=self.seed, cache=self.cache)
        return self._loader(dataset, batch_size=batch_size)

    def train_dataloader(self) -> DataLoader:
        """The training clips, reshuffled and cut anew in every epoch; equally many on every rank."""
        dataset = self.dataset("train", training=True)
        if not len(dataset):
            raise ValueError(
                f"Expected {type(self).__name__} to have training clips, got none: "
                "check that the annotations name clips of the train split."
            )
        rank, world = self._rank_and_world()
        return self._loader(dataset, EpochSampler(dataset, rank, world, self.seed), persistent=True)

    def val_dataloader(self) -> DataLoader | list:
        """This rank's part of the validation clips; no loader where there are none."""
        return self._shard_loader("val") if self.clips("val") else []

    def test_dataloader(self) -> DataLoader:
        """This rank's part of the test clips."""
        if not self.clips("test"):
            raise ValueError(
                f"Expected {type(self).__name__} to have test clips, got none: "
                "check that the annotations name clips of the test split."
            )
        return self._shard_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """This rank's part of the test clips."""
        return self.test_dataloader()

    def _shard_loader(self, split: str) -> DataLoader:
        dataset = self.dataset(split)
        return self._loader(dataset, ShardSampler(dataset, *self._rank_and_world()), persistent=True)

    def _loader(
        self,
        dataset: ClipDataset,
        sampler: ShardSampler | EpochSampler | None = None,
        batch_size: int | None = None,
        persistent: bool = False,
    ) -> DataLoader:
        settings = self.settings
        return DataLoader(
            dataset,
            batch_size=self.batch_size if batch_size is None else batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            worker_init_fn=_start_worker,
            collate_fn=partial(collate, shape=(settings.frames, settings.size, settings.size)),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=persistent and self.num_workers > 0,
        )

    def _rank_and_world(self) -> tuple[int, int]:
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    # ------------------------------------------------------------------ unreadable clips

    def bad_clips(self, split: str) -> BadClips:
        """The unreadable clips met in a split so far; outside the Trainer feed it with ``batch["unreadable"]``."""
        if split not in self._bad_clips:
            self._bad_clips[split] = BadClips(split, len(self.clips(split)), self.max_bad_fraction)
        return self._bad_clips[split]

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
        """Say at the end how many clips could not be read."""
        for bad in self._bad_clips.values():
            if summary := bad.summary():
                log.warning(summary)


def _start_worker(worker_id: int) -> None:
    """Make a forked worker leave alone what it inherited; torch itself limits it to one thread."""
    # Objects of PyAV that wait for the garbage collector in the parent (another part of a program may leave some) own
    # threads that do not exist here: collecting them would wait for those threads for ever.
    gc.freeze()


def _check_clips(class_names: Sequence[str], clips: Sequence[Clip], source: str, trains: bool = True) -> None:
    """What holds for every data set: names and labels fit together; to train, every class has training clips."""
    seen: set[str] = set()
    for clip in clips:
        if clip.sample_id in seen:
            raise ValueError(f"{source}: expected every clip once, but {clip.sample_id!r} is listed twice.")
        seen.add(clip.sample_id)
        assert clip.split in SPLITS, clip
        assert 0 <= clip.label < len(class_names), clip
    trained = {clip.label for clip in clips if clip.split == "train"}
    empty = [name for label, name in enumerate(class_names) if label not in trained]
    if empty and trains:
        raise ValueError(
            f"{source}: expected training clips for each of the {len(class_names)} classes, found none for "
            f"{', '.join(empty[:10])}{', ...' if len(empty) > 10 else ''}. "
            "Add clips of these classes to the train split or take the classes out of the class list."
        )
