"""Predictions of chunks merged to those of the segments that they were cut from, by the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def merge_chunks(chunks: pd.DataFrame, probabilities: np.ndarray, segment_of: Mapping[str, str]) -> pd.DataFrame:
    """Average the probabilities of each segment's chunks and predict from the mean.

    Args:
        chunks: One row per chunk: sample_id, label (its class's index).
        probabilities: (N, C), the rows in the same order.
        segment_of: Name of each sample's segment; a clip that stands for itself has none or an empty one.

    Returns:
        One row per segment, in the order in which they first occur: segment, label, predicted, p_true (the mean
        probability of the label), chunks (how many were averaged). `accuracy` takes this table like that of the chunks.
    """
    if probabilities.ndim != 2 or len(chunks) != len(probabilities):
        raise ValueError(
            f"Expected probabilities (N, C) for the {len(chunks)} chunks, got an array of shape {probabilities.shape}."
        )
    names = [segment_of.get(name) or name for name in chunks["sample_id"]]
    place, segments = pd.factorize(np.asarray(names, dtype=object))
    labels = chunks["label"].to_numpy()
    label = np.zeros(len(segments), dtype=np.int64)
    label[place] = labels
    if (torn := label[place] != labels).any():
        name = names[int(torn.argmax())]
        raise ValueError(
            f"Expected one label for all chunks of a segment, but {name} has several. Correct the annotations, or give "
            "the parts segments of their own."
        )
    size = np.bincount(place, minlength=len(segments))
    mean = np.zeros((len(segments), probabilities.shape[1]))
    np.add.at(mean, place, probabilities)
    mean /= size[:, None]
    p_true = mean[np.arange(len(segments)), label]
    return pd.DataFrame(
        {"segment": list(segments), "label": label, "predicted": mean.argmax(1), "p_true": p_true, "chunks": size}
    )
