"""Testing a model on a split: the prediction for every sample, shared among processes, and accuracies from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from sightline.backbones import Backbone, Reducer
from sightline.run.ranks import Ranks
from sightline.run.sharing import shared_rows
from sightline.types import ClipBatch

TYPES = {"sample_id": str, "label": int, "predicted": int, "p_true": float, "group": str}


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of a model on a split.

    Attributes:
        correct: Number of samples whose class was predicted.
        total: Number of samples that could be read.
        mean_class: Mean over the classes that occur of the share predicted correctly, in [0, 1].
    """

    correct: int
    total: int
    mean_class: float


def accuracy(predictions: pd.DataFrame) -> Accuracy:
    """Count what was predicted correctly.

    Raises:
        ValueError: If there is no prediction.
    """
    if predictions.empty:
        raise ValueError("No sample of the split could be read, so there is no accuracy.")
    correct = predictions["label"] == predictions["predicted"]
    return Accuracy(int(correct.sum()), len(correct), float(correct.groupby(predictions["label"]).mean().mean()))


def top1_percent(predictions: pd.DataFrame | None) -> float:
    """Return the share of samples that were predicted correctly, in percent; of what `predict_split` gave to rank 0."""
    assert predictions is not None
    found = accuracy(predictions)
    return 100 * found.correct / found.total


@torch.no_grad()
def predict(backbone: Backbone, batches: Iterable[ClipBatch], reducer: Reducer | None = None) -> pd.DataFrame:
    """Predict every readable sample of some batches: sample_id, label, predicted, p_true, group."""
    device = next(backbone.parameters()).device
    rows: list[tuple[str, int, int, float, str]] = []
    for batch in batches:
        if not batch["sample_id"]:
            continue
        p = backbone(batch["clip"].to(device), reducer=reducer).cpu().double().softmax(dim=-1)
        true = p.gather(1, batch["label"][:, None]).squeeze(1)
        columns = (batch["label"].tolist(), p.argmax(dim=1).tolist(), true.tolist())
        rows.extend(zip(batch["sample_id"], *columns, batch["group"], strict=True))
    return pd.DataFrame(rows, columns=list(TYPES))


def predict_split(
    backbone: Backbone,
    sample_ids: Sequence[str],
    batches: Callable[[list[int]], Iterable[ClipBatch]],
    path: Path,
    ranks: Ranks | None = None,
    reducer: Reducer | None = None,
) -> pd.DataFrame | None:
    """Predict a whole split, each sample by exactly one process, and write the predictions as a CSV file.

    Args:
        backbone: In evaluation mode, on the device to use.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        path: The file to write, in the order of ``sample_ids``; samples that could not be read are absent.
        ranks: The processes that share the work.
        reducer: The token reduction to run with.

    Returns:
        The predictions on rank 0, None elsewhere.
    """
    ranks = ranks or Ranks()
    parts = path.with_name(f".{path.name}.parts")
    frame = shared_rows(parts, sample_ids, lambda places: predict(backbone, batches(places), reducer), TYPES, ranks)

    def write() -> None:
        assert frame is not None
        unfinished = path.with_name(f".{path.name}")
        frame.to_csv(unfinished, index=False)
        os.replace(unfinished, path)

    ranks.together(write, only_first=True)
    return frame
