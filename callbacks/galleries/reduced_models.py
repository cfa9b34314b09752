"""The models of a run that run with fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sightline.backbones import Backbone
from sightline.backbones.contract.reducer import ReductionPoints
from sightline.export.reading import load_exported, read_description, token_reduction
from sightline.run.paths import DESCRIPTION, RunFolder
from sightline.tokens import TokenReduction


@dataclass(frozen=True)
class ReducedModel:
    """A model and the token reduction that it runs with.

    Attributes:
        name: Label of the reduction, or name of the plan where the model also lacks layers or heads.
        backbone: In evaluation mode.
        tokens: The reduction.
    """

    name: str
    backbone: Backbone
    tokens: TokenReduction

    def check(self) -> None:
        """Raise ValueError where the reduction cannot work with the backbone."""
        ReductionPoints(self.backbone, self.tokens.build())


def exported_reductions(run: RunFolder, backbone: Backbone, plans: Sequence[str]) -> list[ReducedModel]:
    """Return exported models that run with fewer tokens, in the order of their names.

    Args:
        run: The run.
        backbone: The run's own model, which stands for all exports that lack neither layers nor heads.
        plans: Names of the exports, or paths of their folders; all that run with fewer tokens where none is named.

    Raises:
        FileNotFoundError: If a plan that is named was not exported.
        ValueError: If it runs with all tokens.
    """
    if plans:
        folders = [run.pruned(plan.rstrip("/").rpartition("/")[2]) for plan in plans]
    else:
        folders = sorted(path.parent for path in run.pruned_folder.glob(f"*/{DESCRIPTION}"))
    found = []
    for folder in folders:
        description = read_description(folder)
        tokens = token_reduction(description)
        if tokens is None:
            if plans:
                raise ValueError(f"{folder} runs with all tokens; name an export that runs with fewer.")
            continue
        if description["removed_layers"] or description["removed_heads"]:
            exported = load_exported(folder).backbone.to(next(backbone.parameters()).device)
            found.append(ReducedModel(folder.name, exported, tokens))
        else:
            found.append(ReducedModel(tokens.label, backbone, tokens))
    return found
