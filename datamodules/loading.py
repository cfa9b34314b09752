"""The loader behind every data module: batches of clips, decoded by worker processes."""

from __future__ import annotations

import gc
from functools import partial

import torch
from torch.utils.data import DataLoader, Sampler

from datamodules.dataset import ClipDataset, collate


def clip_loader(
    dataset: ClipDataset,
    batch_size: int,
    workers: int,
    sampler: Sampler[int] | None = None,
    persistent: bool = False,
) -> DataLoader:
    """Return a loader of a dataset's clips; ``persistent`` keeps its workers from one epoch to the next."""
    settings = dataset.settings
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        worker_init_fn=_start_worker,
        collate_fn=partial(collate, shape=(settings.frames, settings.size, settings.size)),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=persistent and workers > 0,
    )


def _start_worker(worker_id: int) -> None:
    """Make a forked worker leave alone what it inherited; torch itself limits it to one thread."""
    # Objects of PyAV that wait for the garbage collector in the parent (another part of a program may leave some) own
    # threads that do not exist here: collecting them would wait for those threads for ever.
    gc.freeze()
