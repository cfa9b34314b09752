"""Testing a model on a split: the prediction for every sample, shared among processes, and accuracies from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from sightline.backbones import Backbone, Reducer
from sightline.backbones.fingerprint import weights_sha256
from sightline.run.csv_table import write_table
from sightline.run.parts import PartStore, in_order
from sightline.run.ranks import Ranks
from sightline.run.sharing import Batches, BatchResult, share_result
from sightline.statistics.class_accuracy import mean_class_accuracy
from sightline.statistics.top1_interval import Top1Interval, top1_interval
from sightline.types import ClipBatch

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("label", pa.int64()),
        ("predicted", pa.int64()),
        ("p_true", pa.float64()),
        ("group", pa.string()),
    ]
)


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of a model on a split.

    Attributes:
        correct: Number of samples whose class was predicted.
        total: Number of samples that could be read.
        mean_class: Mean of the accuracies of the classes that occur, in [0, 1], see `mean_class_accuracy`.
        interval: Of the share predicted correctly.
    """

    correct: int
    total: int
    mean_class: float
    interval: Top1Interval


def accuracy(predictions: pd.DataFrame) -> Accuracy:
    """Count what was predicted correctly.

    Args:
        predictions: label, predicted and, where subjects are known, group.

    Raises:
        ValueError: If there is no prediction.
    """
    if predictions.empty:
        raise ValueError("No sample of the split could be read, so there is no accuracy.")
    correct = predictions["label"] == predictions["predicted"]
    of_class = correct.groupby(predictions["label"]).agg(["sum", "count"])
    subjects = predictions["group"].astype(str).tolist() if "group" in predictions else None
    return Accuracy(
        int(correct.sum()),
        len(correct),
        mean_class_accuracy(of_class["sum"], of_class["count"]),
        top1_interval(correct, subjects),
    )


def top1_percent(predictions: pd.DataFrame | None) -> float:
    """Return the share of samples that were predicted correctly, in percent; of what `predict_split` gave to rank 0."""
    assert predictions is not None
    found = accuracy(predictions)
    return 100 * found.correct / found.total


@torch.no_grad()
def predict_batch(backbone: Backbone, batch: ClipBatch, reducer: Reducer | None = None) -> pa.Table:
    """Predict the samples of a batch: the rows of `SCHEMA`.

    Raises:
        ValueError: If the model gives no probabilities for a sample.
    """
    device = next(backbone.parameters()).device
    p = backbone(batch["clip"].to(device), reducer=reducer).cpu().double().softmax(dim=-1)
    if not p.isfinite().all():
        bad = [name for name, row in zip(batch["sample_id"], p, strict=True) if not row.isfinite().all()]
        raise ValueError(f"The model's probabilities of {', '.join(bad)} are not finite; there is no prediction.")
    true = p.gather(1, batch["label"][:, None]).squeeze(1)
    columns = (batch["label"].tolist(), p.argmax(dim=1).tolist(), true.tolist())
    return pa.table([batch["sample_id"], *columns, batch["group"]], schema=SCHEMA)


def predict_split(
    backbone: Backbone,
    sample_ids: Sequence[str],
    batches: Batches,
    path: Path,
    ranks: Ranks | None = None,
    made_from: Mapping[str, Any] | None = None,
    reducer: Reducer | None = None,
) -> pd.DataFrame | None:
    """Predict a whole split, each sample by exactly one process, and write the predictions as a CSV file.

    Args:
        backbone: In evaluation mode, on the device to use.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        path: The file to write, in the order of ``sample_ids``; samples that could not be read are absent.
        ranks: The processes that share the work.
        made_from: What the predictions depend on besides the backbone's weights and the reducer (hash of the data). An
            interrupted job goes on where it was if it is the same; without it, jobs begin anew.
        reducer: The token reduction to run with.

    Returns:
        The predictions on rank 0, None elsewhere.
    """
    ranks = ranks or Ranks()
    made = None
    if made_from is not None:
        made = {"weights_sha256": weights_sha256(backbone), "tokens": reducer and repr(reducer), **made_from}
    store = PartStore.beside(path, SCHEMA, made)

    def write(rows: Iterable[pa.Table]) -> pd.DataFrame:
        frame = in_order(rows, SCHEMA, sample_ids)
        write_table(frame, path)
        return frame

    def work(batch: ClipBatch) -> BatchResult:
        return BatchResult(predict_batch(backbone, batch, reducer))

    return share_result(store, sample_ids, batches, work, write, ranks)
