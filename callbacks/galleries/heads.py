"""Which heads a run's pictures show, from the scores that the run has."""

from __future__ import annotations

from collections.abc import Sequence

from callbacks.analysis import Context
from sightline.backbones.fingerprint import weights_sha256
from sightline.relevance.clip_heads import HeadChooser
from sightline.relevance.heads import default_ends
from sightline.relevance.table import read_manifest, read_scores
from sightline.run.paths import RunFolder


def head_chooser(
    context: Context, splits: Sequence[str], early: int | None, deep: int | None, last: int, score: str
) -> tuple[HeadChooser, str]:
    """Read the scores of the first of some splits whose heads were scored; also return which split that is.

    Args:
        context: The run.
        splits: Names of splits; the last is read where none was scored, which tells how to score it.
        early: How many of the first layers are early; None for the family's default.
        deep: How many of the last layers are deep, likewise.
        last: How many of the last layers specialised heads are chosen from.
        score: ``r``, ``jsd`` or ``dprob``.

    Raises:
        FileNotFoundError: If none of the splits was scored.
        ValueError: If what was scored is a race.
    """
    split = next((name for name in splits if _scored(context.run, name)), splits[-1])
    folder = context.run.relevance(split).path
    table = read_scores(folder, "heads")
    entry = read_manifest(folder)["tables"]["heads"]
    if entry["weights_sha256"] != weights_sha256(context.backbone):
        existing = {(unit.layer, unit.site, unit.head) for unit in context.backbone.units("heads")}
        table = table[[key in existing for key in zip(table["layer"], table["site"], table["head"], strict=True)]]
        if context.ranks.rank == 0:
            print(
                f"The scores of {context.folder} belong to other weights than those shown; heads that no longer exist "
                "are not chosen."
            )
    ends = default_ends(context.backbone.end_layers, table["layer"].nunique())
    early, deep = ends if early is None else early, ends if deep is None else deep
    return HeadChooser(table, entry["class_names"], early, deep, last, score), split


def _scored(run: RunFolder, split: str) -> bool:
    """Whether all heads of a split were scored on all its clips."""
    entry = read_manifest(run.relevance(split).path)["tables"].get("heads")
    return entry is not None and entry.get("race") is None
