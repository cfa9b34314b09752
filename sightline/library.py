"""What `import sightline` offers on clips in memory: relevance of every head and layer, and maps of heads.

`sightline.export.model` has the rest: loading a model and classifying videos with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from sightline.backbones import Backbone, Reducer
from sightline.explain import CellMap, head_maps
from sightline.export.model import Clips, Model, stacked_clips
from sightline.relevance.ablation import ablated_logits
from sightline.relevance.matrix import SCORES, UNIT
from sightline.relevance.memory import StackSize
from sightline.relevance.scores import score as score_logits
from sightline.relevance.table import rows_of
from sightline.types import Unit


def score(
    model: Model | Backbone,
    clips: Clips,
    labels: Sequence[int | str] | Tensor,
    *,
    units: Literal["all", "heads", "layers"] = "all",
    sample_ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    batch: int = 4,
) -> pd.DataFrame:
    """Score how much the predictions for some clips change when a unit is ablated, for every unit of a model.

    The scores are exact: each unit is ablated in turn, and nothing that does not change is computed twice.

    Args:
        model: What `load` returned, or a backbone in evaluation mode.
        clips: (B, 3, T, H, W), as `Model.clip` makes them, or a list of such clips.
        labels: The classes of the clips, as indices or as names.
        units: Which units to score.
        sample_ids: Names of the clips, their places by default.
        groups: What related clips share (the subject), each clip a group of its own by default.
        batch: How many clips run together, which results do not depend on.

    Returns:
        One row per clip and unit, with the columns of a run's score tables: sample_id, label, predicted, group, layer,
        site and head (both missing for a layer), p_true, p_true_ablated, dprob, jsd, r.

    Raises:
        ValueError: If the clips are not the model's, or labels or names do not fit.
    """
    backbone, reducer = _network(model)
    stacked = stacked_clips(clips)
    indices = _labels(labels, _class_names(model), backbone.config.num_classes, len(stacked))
    names = _names(sample_ids, "sample_ids", len(stacked))
    of_group = names if groups is None else _names(groups, "groups", len(stacked), different=False)
    if batch < 1:
        raise ValueError(f"Expected batch of at least 1, got {batch}.")
    kinds = ("layers", "heads") if units == "all" else (units,)
    wanted = [unit for kind in kinds for unit in backbone.units(kind)]
    size, rows = StackSize(), []
    for start in range(0, len(stacked), batch):
        part = slice(start, start + batch)
        logits = ablated_logits(backbone, stacked[part].to(_device(backbone)), wanted, stack=size, reducer=reducer)
        scores = score_logits(logits.base, logits.units, indices[part])
        rows.append(rows_of(scores, wanted, names[part], indices[part].tolist(), of_group[part]))
    return pa.concat_tables(rows).to_pandas().astype({"head": "Int64"})


def most_relevant(scores: pd.DataFrame, count: int = 3, *, by: str = "r") -> list[Unit]:
    """Return the heads with the highest mean score, the highest first; ties go to the lower index.

    Args:
        scores: A score table with heads; rows of layers are passed over.
        count: How many heads.
        by: ``r``, ``jsd`` or ``dprob``.

    Raises:
        ValueError: If the score is unknown, or the table holds no heads.
    """
    if by not in SCORES:
        raise ValueError(f"by must be one of {', '.join(SCORES)}, got {by!r}.")
    heads = scores[scores["head"].notna()]
    if heads.empty or count < 1:
        raise ValueError(f"Expected scores of heads and a count of at least 1, got {len(heads)} rows and {count}.")
    means = heads.groupby(UNIT, observed=True)[by].mean()
    best = means.sort_values(ascending=False, kind="stable").index[:count]
    return [Unit(int(layer), str(site), int(head)) for layer, site, head in best]


def maps(model: Model | Backbone, clips: Clips, heads: Sequence[Unit] | None = None) -> dict[Unit, CellMap]:
    """Return what heads look at: a map over each clip for every head, never averaged over heads.

    Args:
        model: What `load` returned, or a backbone in evaluation mode.
        clips: (B, 3, T, H, W), or a list of clips; all run together.
        heads: Which heads, e.g. those of `most_relevant`; all if not given.

    Returns:
        By head its map; `CellMap.pixels` gives it on the clips' frames, (B, T, H, W).

    Raises:
        ValueError: If the clips are not the model's, or it has no such head.
    """
    backbone, reducer = _network(model)
    wanted = backbone.units("heads") if heads is None else list(heads)
    return head_maps(backbone, stacked_clips(clips).to(_device(backbone)), wanted, reducer)


def _network(model: Model | Backbone) -> tuple[Backbone, Reducer | None]:
    """Return the network, and the token reduction that it runs with."""
    if isinstance(model, Backbone):
        return model, None
    if isinstance(model, Model):
        return model.backbone, model.reducer
    raise ValueError(f"Expected what sightline.load returns, or a backbone, got {type(model).__name__}.")


def _device(backbone: Backbone) -> torch.device:
    return next(backbone.parameters()).device


def _class_names(model: Model | Backbone) -> tuple[str, ...]:
    return model.classes if isinstance(model, Model) else model.record.class_names


def _labels(labels: Sequence[int | str] | Tensor, names: tuple[str, ...], classes: int, clips: int) -> Tensor:
    """Return the indices of the clips' classes, int64 (B,)."""
    given = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if len(given) != clips:
        raise ValueError(f"Expected one label per clip, got {len(given)} labels and {clips} clips.")
    unknown = [label for label in given if isinstance(label, str) and label not in names]
    if unknown:
        raise ValueError(f"The model has no class {unknown[0]!r}; its classes are {', '.join(names) or 'not named'}.")
    indices = [names.index(label) if isinstance(label, str) else int(label) for label in given]
    if outside := [index for index in indices if not 0 <= index < classes]:
        raise ValueError(f"Expected labels from 0 to {classes - 1}, got {outside[0]}.")
    return torch.tensor(indices, dtype=torch.int64)


def _names(given: Sequence[str] | None, what: str, clips: int, different: bool = True) -> list[str]:
    names = list(map(str, range(clips) if given is None else given))
    if len(names) != clips or (different and len(set(names)) != clips):
        raise ValueError(f"Expected {clips} {'different ' * different}{what}, one per clip, got {names}.")
    return names
