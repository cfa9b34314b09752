"""Rankings of layers by other means than relevance, to compare with under the same protocol.

- ``random``: a draw per layer, by seed.
- ``last``: the layers nearest to the classifier go first.
- ``block_influence``: how much a layer turns its tokens, 1 - cos(x, y) for tokens x before and y after it, averaged
  over tokens and clips (Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
  2024, their Block Influence). Needs no labels.
- ``gradient``: the first-order estimate of how the loss changes when the layer becomes the identity,
  | sum over tokens and channels of (y - x) * dL/dy |, averaged over clips; L is the cross-entropy of the label. It is
  the Taylor criterion of Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference",
  2017, for what a layer adds to its residual stream. Deviations: a sum instead of a mean over positions (all positions
  go together), no normalisation within layers. It is to a layer what `sightline.relevance.screening` is to a head.

Of each, the layers with the lowest values are removed. Layers that change the grid or the width can neither be removed
nor compared token by token, and have no value.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.backbones import Backbone, run_steps
from sightline.relevance.precision import forward_precision
from sightline.run.atomic import write_json
from sightline.run.parts import PartStore, in_order
from sightline.run.paths import RelevanceFolder
from sightline.run.ranks import Ranks
from sightline.run.sharing import Batches, BatchResult, share_result
from sightline.types import ClipBatch, LayerInfo

FORMAT_VERSION = 1
FROM_DATA = ("block_influence", "gradient")


@dataclass(frozen=True)
class ClipBaselines:
    """Scores of the removable layers on every clip of a batch, both (layers, B), layers in ascending order."""

    block_influence: Tensor
    gradient: Tensor


def random_scores(layers: Sequence[LayerInfo], seed: int) -> pd.Series:
    """Draw a number in [0, 1) for every removable layer; a seed always draws the same."""
    draw = random.Random(seed)
    return pd.Series({info.index: draw.random() for info in layers if info.removable})


def last_scores(layers: Sequence[LayerInfo]) -> pd.Series:
    """Return how many removable layers follow each removable layer."""
    removable = [info.index for info in layers if info.removable]
    return pd.Series({index: float(len(removable) - 1 - place) for place, index in enumerate(removable)})


def clip_baselines(backbone: Backbone, clips: Tensor, labels: Tensor) -> ClipBaselines:
    """Score every removable layer on every clip of a batch, by one forward and one backward pass.

    Args:
        backbone: In evaluation mode; its parameters may be frozen.
        clips: (B, 3, T, H, W).
        labels: int64 (B,).

    Raises:
        ValueError: If the backbone is in training mode.
    """
    if backbone.training:
        raise ValueError("Baselines need the backbone in evaluation mode; call backbone.eval() first.")
    before, after = [], []
    with torch.enable_grad():
        state = backbone.embed(clips)
        # Gradients start at the tokens, so that frozen parameters need none.
        state = state.with_tokens(state.tokens.detach().requires_grad_())
        for step in run_steps(backbone, state):
            first = step.layer is not None and step.layer.removable and step.site == step.layer.sites[0].name
            if first:
                before.append(step.before.tokens)
            if step.kind == "mlp" and step.layer is not None and step.layer.removable:
                after.append(step.after.tokens)
            state = step.after
        logits = backbone.classify(state)
        # Clips do not influence each other: the gradient of the sum is that of each clip's own loss.
        loss = F.cross_entropy(logits.float(), labels.to(logits.device), reduction="sum")
        gradients = torch.autograd.grad(loss, after) if after else ()
    empty = logits.new_empty(0, len(labels))
    pairs = [(x.detach().float(), y.detach().float()) for x, y in zip(before, after, strict=True)]
    turned = [1 - F.cosine_similarity(x, y, dim=-1).mean(dim=1) for x, y in pairs]
    slopes = [
        ((y - x) * gradient.float()).sum(dim=(1, 2)).abs() for (x, y), gradient in zip(pairs, gradients, strict=True)
    ]
    return ClipBaselines(torch.stack(turned) if turned else empty, torch.stack(slopes) if slopes else empty)


def score_baselines(
    backbone: Backbone,
    folder: Path,
    sample_ids: Sequence[str],
    batches: Batches,
    *,
    weights_sha256: str,
    data_sha256: str,
    ranks: Ranks | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compute the baselines that need data on a whole split, or read them where they were computed before.

    Args:
        backbone: In evaluation mode, on the device to use.
        folder: ``relevance/<split>`` of the run; the file ``baselines.json`` is written there.
        sample_ids: Names of all samples of the split.
        batches: Gives an iterable of batches of the samples at these places.
        weights_sha256: Hash of the model's weights and structure.
        data_sha256: Hash of the list of samples and of how frames are taken from them.
        ranks: The processes that share the work.
        provenance: What else to record in the file.

    Returns:
        The file's content; ``scores`` holds the mean of every layer for every method.
    """
    ranks = ranks or Ranks()
    made_from = {"format_version": FORMAT_VERSION, "weights_sha256": weights_sha256, "data_sha256": data_sha256}
    path = RelevanceFolder(folder).baselines

    def is_there() -> bool:
        return path.is_file() and made_from.items() <= json.loads(path.read_text()).items()

    # Rank 0 decides: the others might look before or after it has written.
    if not ranks.all_true(bool(ranks.together(is_there, only_first=True)) or ranks.rank > 0):
        indices = [info.index for info in backbone.layers if info.removable]
        columns = [f"{method} {index}" for method in FROM_DATA for index in indices]
        schema = pa.schema([("sample_id", pa.string()), *((column, pa.float64()) for column in columns)])
        about = {**made_from, **(provenance or {})}
        share_result(
            PartStore.beside(path, schema, made_from),
            sample_ids,
            batches,
            lambda batch: BatchResult(_rows(backbone, batch, schema)),
            lambda rows: _write(path, in_order(rows, schema, sample_ids), indices, about),
            ranks,
        )
    return json.loads(path.read_text())


def baseline_scores(content: Mapping[str, Any], method: str) -> pd.Series:
    """Return a method's mean of every layer from what `score_baselines` returned, indexed by original layer index."""
    return pd.Series({int(index): float(value) for index, value in content["scores"][method].items()})


def _rows(backbone: Backbone, batch: ClipBatch, schema: pa.Schema) -> pa.Table:
    device = next(backbone.parameters()).device
    with forward_precision("float32", device):
        found = clip_baselines(backbone, batch["clip"].to(device), batch["label"])
    values = torch.cat([found.block_influence, found.gradient]).cpu().double()
    return pa.table([batch["sample_id"], *values.tolist()], schema=schema)


def _write(path: Path, rows: pd.DataFrame, indices: list[int], about: dict[str, Any]) -> None:
    if rows.empty:
        raise ValueError(
            "No clip of the split could be read, so there are no baselines. See the list of unreadable clips."
        )
    means = rows.drop(columns="sample_id").mean()
    scores = {method: {str(i): float(means[f"{method} {i}"]) for i in indices} for method in FROM_DATA}
    write_json(path, {**about, "samples": len(rows), "scores": scores})
