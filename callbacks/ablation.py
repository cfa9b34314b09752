"""After the fit: ablate one head, or one layer, at a time over a split and store the scores."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import lightning
import torch

from callbacks.analysis import Analysis, Context
from lightning_modules.video_classifier import VideoClassifier
from sightline.backbones.fingerprint import weights_sha256
from sightline.relevance.job import score_split
from sightline.relevance.precision import Precision
from sightline.relevance.race_job import race_split
from sightline.relevance.race_settings import RaceSettings
from sightline.relevance.table import ScoreTable, Settings


class _Ablation(Analysis):
    command: ClassVar[str] = "ablate"
    kind: ClassVar[str]

    def __init__(
        self,
        largest_stack: int | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
        race: RaceSettings | None = None,
    ) -> None:
        """Set up the ablation.

        Args:
            largest_stack: The most variants of a batch to run as one; by default as many as the memory allows. Scores
                do not depend on it.
            batch_size: Clips per batch; the data module's if not given.
            precision: float32, or tf32 or bf16, which are faster on a GPU and have a higher noise floor.
            race: Stop evaluating units whose place in these sets is settled (docs/relevance.md says how surely);
                by default every unit is evaluated on every clip. ``ablate --sampling`` overrides it.
        """
        self.largest_stack = largest_stack
        self.batch_size = batch_size
        self.precision: Precision = precision
        self.race = race

    def check(self, module: VideoClassifier) -> None:
        super().check(module)
        if self.race is not None:
            self.race.check()

    def analyse(self, context: Context) -> None:
        clips = context.data.clips(context.split)
        race = {None: self.race, "full": None, "racing": context.race}[context.sampling]
        settings = Settings(
            self.kind,
            weights_sha256(context.backbone),
            context.data.data_hash(context.split),
            self.precision,
            "full" if race is None else str(race),
        )
        names = context.data.class_names
        classes = [names[clip.label] for clip in clips]
        score = score_split if race is None else partial(race_split, settings=race, classes=classes)
        score(
            context.backbone,
            ScoreTable(context.relevance_folder, settings),
            [clip.sample_id for clip in clips],
            lambda places: context.batches(context.split, places, self.batch_size),
            ranks=context.ranks,
            largest_stack=self.largest_stack,
            overwrite=context.overwrite,
            provenance={
                "split": context.split,
                "class_names": names,
                "backbone": dict(context.module.hparams)["backbone"],
                "checkpoint": context.checkpoint,
                "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
            },
        )


class HeadAblation(_Ablation):
    """Scores every attention head: relevance/<split>/heads.parquet."""

    kind = "heads"


class LayerAblation(_Ablation):
    """Scores every layer: relevance/<split>/layers.parquet."""

    kind = "layers"
