"""A full model with the scores of its units on a split: what plans are chosen from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sightline.backbones import Backbone
from sightline.backbones.fingerprint import weights_sha256
from sightline.pruning.baselines import score_baselines
from sightline.pruning.greedy import score_without
from sightline.relevance.table import read_manifest, read_scores
from sightline.run.ranks import Ranks
from sightline.types import ClipBatch


@dataclass(frozen=True)
class ScoredModel:
    """A full model, where its scores on a split are, and what further scores are computed from.

    Attributes:
        backbone: In evaluation mode, on the device to use; nothing was removed from it.
        checkpoint: Where its weights come from.
        split: The split that decides.
        folder: ``relevance/<split>`` of the run.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        data_sha256: Hash of the list of samples and of how frames are taken from them.
        ranks: The processes that share the work.
    """

    backbone: Backbone
    checkpoint: str
    split: str
    folder: Path
    sample_ids: Sequence[str]
    batches: Callable[[list[int]], Iterable[ClipBatch]]
    data_sha256: str
    ranks: Ranks = field(default_factory=Ranks)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the model's weights and structure."""
        return weights_sha256(self.backbone)

    def ablation(self, kind: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Read the score table of ``layers`` or ``heads`` and its entry in the manifest.

        Raises:
            FileNotFoundError: If the model was not ablated.
            ValueError: If the scores are of other weights or other clips.
        """
        table = read_scores(self.folder, kind)
        entry = read_manifest(self.folder)["tables"][kind]
        if entry["data_sha256"] != self.data_sha256:
            raise ValueError(
                f"The scores in {self.folder} were made on other clips than the data has now. "
                "Run train.py ablate with --overwrite true first."
            )
        if entry["weights_sha256"] != self.weights_sha256:
            raise ValueError(
                f"The scores in {self.folder} were made with other weights than {self.checkpoint}. "
                "Run train.py ablate with --overwrite true first, or pass the checkpoint that was scored."
            )
        return table, entry

    def ablation_without(self, removed: tuple[int, ...], entry: Mapping[str, Any]) -> pd.DataFrame:
        """Return the scores of the layers that are left once these are removed, computed where they are missing.

        Args:
            removed: Original indices, ascending.
            entry: The manifest's entry of the full model's scores, which tells the precision.
        """
        return score_without(
            self.backbone,
            removed,
            self.folder,
            self.sample_ids,
            self.batches,
            data_sha256=entry["data_sha256"],
            precision=entry.get("precision", "float32"),
            ranks=self.ranks,
            provenance=self._provenance(),
        )

    def baselines(self) -> dict[str, Any]:
        """Return the baselines that need data, computed where they are missing; see `score_baselines`."""
        return score_baselines(
            self.backbone,
            self.folder,
            self.sample_ids,
            self.batches,
            weights_sha256=self.weights_sha256,
            data_sha256=self.data_sha256,
            ranks=self.ranks,
            provenance=self._provenance(),
        )

    def _provenance(self) -> dict[str, Any]:
        return {"split": self.split, "checkpoint": self.checkpoint, "versions": {"torch": torch.__version__}}
