"""After a test of clips that were cut from longer segments: the accuracies of the segments, merged from their clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from callbacks.run_records import suffix_of_test
from datamodules.clip_data_module import ClipDataModule
from sightline.export.evaluation import accuracy
from sightline.export.segments import merge_chunks
from sightline.run.csv_table import write_table
from sightline.run.paths import RunFolder
from sightline.video.clips import Clip


class SegmentResults(L.Callback):
    """Logs test/segment_top1 and test/segment_mean_class_acc where clips have segments; tables/test_segments.csv."""

    def __init__(self) -> None:
        self._probabilities: dict[str, np.ndarray] = {}
        self._segments: pd.DataFrame | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._probabilities, self._segments = {}, None

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if isinstance(outputs, Mapping) and self._clips(trainer):
            rows = outputs["probabilities"].cpu().double().numpy()
            self._probabilities.update(zip(outputs["sample_id"], rows, strict=True))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Every rank merges what all of them have: the clips of a segment may be anywhere.
        clips = self._clips(trainer)
        found = self._of_all_ranks(trainer)
        clips = [clip for clip in clips if clip.sample_id in found]
        if not clips:
            return
        self._segments = merge_chunks(
            pd.DataFrame({"sample_id": [clip.sample_id for clip in clips], "label": [clip.label for clip in clips]}),
            np.stack([found[clip.sample_id] for clip in clips]),
            {clip.sample_id: clip.segment for clip in clips},
        )
        merged = accuracy(self._segments)
        pl_module.log("test/segment_top1", merged.correct / merged.total, sync_dist=True)
        pl_module.log("test/segment_mean_class_acc", merged.mean_class, sync_dist=True)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._segments is None or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        names = np.asarray(trainer.datamodule.class_names)  # type: ignore[attr-defined]
        table = self._segments.assign(**{key: names[self._segments[key]] for key in ("label", "predicted")})
        suffix = suffix_of_test(trainer, pl_module)
        path = RunFolder(Path(trainer.default_root_dir)).table(f"test_segments{suffix}")
        write_table(table, path)
        print(f"Segments: {path}")

    def _clips(self, trainer: L.Trainer) -> list[Clip]:
        """The test clips, in their order, where any belongs to a segment."""
        data = getattr(trainer, "datamodule", None)
        clips = data.clips("test") if isinstance(data, ClipDataModule) else []
        return clips if any(clip.segment for clip in clips) else []

    def _of_all_ranks(self, trainer: L.Trainer) -> dict[str, np.ndarray]:
        if trainer.world_size == 1:
            return self._probabilities
        parts: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, self._probabilities)
        return {name: row for part in parts for name, row in part.items()}
