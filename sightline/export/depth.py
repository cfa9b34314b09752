"""One full model that serves any depth: which layers to leave out of a call, following the ranking.

    backbone = load_exported(folder).backbone
    logits = backbone(clips, skip=layers_to_skip(folder, depth=3))

The logits are those of the export from which the three least relevant layers were removed.
"""

from __future__ import annotations

from pathlib import Path

from sightline.export.reading import ExportError, read_description
from sightline.run.paths import DESCRIPTION


def layers_to_skip(folder: str | Path, depth: int) -> tuple[int, ...]:
    """Return the ``depth`` least relevant layers of an exported model, ascending, for `Backbone.forward`'s ``skip``.

    Args:
        folder: Folder of an exported unpruned model.
        depth: How many layers to leave out, 0 for none.

    Raises:
        FileNotFoundError: If there is no exported model.
        ValueError: If it was pruned itself, holds no ranking, or has fewer layers that can go.
    """
    description = read_description(folder)
    if depth == 0:
        return ()
    if description.get("removed_layers") or description.get("removed_heads"):
        raise ExportError(f"{folder} holds a model that was pruned already. Depths are served by an unpruned export.")
    ranking = description.get("ranking")
    if not isinstance(ranking, list) or not all(type(layer) is int for layer in ranking):
        raise ExportError(
            f"{Path(folder) / DESCRIPTION} holds no ranking of the layers. Export with PrunedCheckpoints' "
            "export_full from scores of all clips (not raced)."
        )
    if not 0 < depth <= len(ranking):
        raise ValueError(f"Expected a depth from 0 to {len(ranking)}, the layers that can be left out, got {depth}.")
    return tuple(sorted(ranking[:depth]))
