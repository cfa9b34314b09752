"""What two models look at in one clip: a few heads of each over the same frames (the thesis' figure 5.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import Tensor

from sightline.explain.metrics.agreement import map_agreement
from sightline.relevance.clip_heads import ShownHead
from sightline.report.figures.attention import Frames, Panel

_SCORED = "mean over a run's training clips (of the class that a head is specialised in)"
_AROUND = "consecutive frames, around the one with the largest sum of the first map"


@dataclass(frozen=True)
class ModelView:
    """One model on the clip.

    Attributes:
        run: Name of its run.
        family: Its architecture.
        predicted: The class that it takes the clip for.
        probability: With which probability.
        speciality: The class that its heads are specialised in; None where they are the most relevant to all clips.
        heads: The heads that are shown, one per site.
        maps: The map (T, H, W) of each.
    """

    run: str
    family: str
    predicted: str
    probability: float
    speciality: str | None
    heads: tuple[ShownHead, ...]
    maps: tuple[Tensor, ...]

    @property
    def prediction(self) -> str:
        return f"{self.predicted} ({self.probability:.0%})"

    def panels(self, score: str) -> list[Panel]:
        """Return the maps to draw."""
        why = "most relevant of all" if self.speciality is None else f"specialised in {self.speciality}"
        before = f"{self.run} ({self.family}), predicts {self.prediction}: "
        return [
            Panel(
                f"{before}{head.unit.site} layer {head.unit.layer} head {head.unit.head}, {why}, {score} "
                f"{head.score:.2g}",
                pixels,
            )
            for head, pixels in zip(self.heads, self.maps, strict=True)
        ]

    def described(self) -> str:
        """Say in words which heads are shown."""
        heads = "heads" if len(self.heads) > 1 else "head"
        to = "all its clips" if self.speciality is None else self.speciality
        return f"the {heads} of {self.run} most relevant to {to}"


@dataclass(frozen=True)
class TwoModels:
    """Everything that is drawn of a clip.

    Attributes:
        sample_id: Its name.
        actual: Its class.
        frames: uint8 (T, H, W, 3), as they are shown.
        ours: The model that the clip's data belong to.
        theirs: The other one.
        score: By which heads were chosen.
    """

    sample_id: str
    actual: str
    frames: Frames
    ours: ModelView
    theirs: ModelView
    score: str

    @property
    def title(self) -> str:
        return f"{self.actual}: {self.ours.run} above, {self.theirs.run} below"

    @property
    def note(self) -> str:
        return f"{self.sample_id}   |   {self.score}: {_SCORED}   |   {_AROUND}"

    def panels(self) -> list[Panel]:
        """Return the maps to draw, those of our model first."""
        return [*self.ours.panels(self.score), *self.theirs.panels(self.score)]

    def caption(self) -> str:
        """Say in few words what is shown."""
        return (
            f"Two models on the same frames: attention of {self.ours.described()}, and of {self.theirs.described()}. "
            f"Clip {self.sample_id}: {self.actual}, predicted {self.ours.prediction} and {self.theirs.prediction}."
        )

    def table(self) -> Iterator[dict[str, Any]]:
        """Yield one row for every pair of a head of ours and a head of theirs."""
        of_both = (list(zip(view.heads, view.maps, strict=True)) for view in (self.ours, self.theirs))
        for (head, pixels), (other, other_pixels) in product(*of_both):
            yield {
                "sample_id": self.sample_id,
                "class": self.actual,
                **_columns(self.ours, head, self.score, ""),
                **_columns(self.theirs, other, self.score, "other_"),
                "spearman": map_agreement(pixels, other_pixels),
            }


def _columns(view: ModelView, head: ShownHead, score: str, before: str) -> dict[str, Any]:
    told = {
        "run": view.run, "predicted": view.predicted, "probability": view.probability, "choice": head.choice,
        "site": head.unit.site, "layer": head.unit.layer, "head": head.unit.head, score: head.score,
    }  # fmt: skip
    return {before + key: value for key, value in told.items()}
