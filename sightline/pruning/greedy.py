"""Greedy pruning: after each cut the layers that remain are scored again, on the model that is left.

One ranking of the full model cannot see that two layers stand in for each other: either can go, but not both. Scored
again, the second one has become relevant.

    relevance/<split>/greedy/without-3-7/    the score table of the model without layers 3 and 7

A step's table depends on nothing but what was cut before, so both modes and all scores share it, and an interrupted job
goes on where it was. In a model of L layers that cost the same, scoring after j cuts runs (L - j)(L - j - 1) / 2 layers
per clip beside its base pass, and the first step is the ablation of the full model, which is there already: k cuts take
up to k - 1 times as long as that ablation, for k small against L.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sightline.backbones import Backbone
from sightline.backbones.fingerprint import weights_sha256
from sightline.pruning.plan import MODES
from sightline.relevance.job import score_split
from sightline.relevance.precision import Precision
from sightline.relevance.table import ScoreTable, Settings, read_scores
from sightline.run.paths import RelevanceFolder
from sightline.run.ranks import Ranks
from sightline.types import ClipBatch, LayerInfo


@dataclass(frozen=True)
class Cut:
    """One step: the layer that went, and its mean score on the model that it was cut from."""

    layer: int
    mean: float


def greedy_cuts(
    layers: Sequence[LayerInfo], count: int, mode: str, means_without: Callable[[tuple[int, ...]], pd.Series]
) -> list[Cut]:
    """Choose layers one after the other, each by scores of the model without those before it.

    Args:
        layers: The layers of the full model; those that cannot be removed are passed over.
        count: How many to choose.
        mode: ``lowest`` or ``highest``.
        means_without: Gives the mean score of every layer that is left, by original index, once these (ascending) went.

    Returns:
        The cuts in order. Ties go to the lower index.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    sign = 1 if mode == "lowest" else -1
    left = [info.index for info in layers if info.removable]
    if count > len(left):
        raise ValueError(f"Cannot cut {count} layers: {len(left)} of {len(layers)} can be removed.")
    cuts: list[Cut] = []
    for _ in range(count):
        means = means_without(tuple(sorted(cut.layer for cut in cuts)))
        layer = min(left, key=lambda index: (sign * means[index], index))
        left.remove(layer)
        cuts.append(Cut(layer, float(means[layer])))
    return cuts


def score_without(
    backbone: Backbone,
    removed: tuple[int, ...],
    folder: Path,
    sample_ids: Sequence[str],
    batches: Callable[[list[int]], Iterable[ClipBatch]],
    *,
    data_sha256: str,
    precision: Precision = "float32",
    ranks: Ranks | None = None,
    provenance: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Ablate every remaining layer of a model without some layers, or read that table where it is there already.

    Args:
        backbone: The full model, in evaluation mode, on the device to use.
        removed: Original indices, ascending.
        folder: ``relevance/<split>`` of the run.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        data_sha256: Hash of the list of samples and of how frames are taken from them.
        precision: Number format of the forward passes.
        ranks: The processes that share the work.
        provenance: What else to record in the manifest.

    Returns:
        The rows of the table.
    """
    ranks = ranks or Ranks()
    smaller = backbone.without(removed)
    place = RelevanceFolder(folder).without(removed).path
    score_split(
        smaller,
        ScoreTable(place, Settings("layers", weights_sha256(smaller), data_sha256, precision)),
        sample_ids,
        batches,
        ranks=ranks,
        overwrite=True,  # what an earlier training left is of no use to anyone
        provenance={**(provenance or {}), "removed_layers": list(removed)},
    )
    table = ranks.together(lambda: read_scores(place, "layers"))
    assert table is not None
    return table
