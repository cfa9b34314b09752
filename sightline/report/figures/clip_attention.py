"""What a gallery shows of one clip: the pictures, the videos beside them, their captions and a table of the heads.

- ``heads`` (the thesis' figure 5.2): the most against the least relevant head at three depths.
- ``frames`` (5.4): the specialised head of the clip's class over consecutive frames, one per site.
- ``methods`` (5.5): the most relevant head of every site; where there are two sites, also the product of their maps;
  attention rollout, where the family has one. Left out where all that is left is the map in ``frames``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sightline.relevance.clip_heads import ClipHeads, ShownHead
from sightline.relevance.heads import DEPTHS
from sightline.report.figures.attention import Frames, HeadGrid, Panel, Row, side_by_side, strip_figure
from sightline.types import Unit

_PEAK = "Each still is the frame with the largest sum of the head's map."
_AROUND = "The frames are consecutive, around the one with the largest sum of the first map."


@dataclass(frozen=True)
class ClipAttention:
    """Everything that is drawn of a clip.

    Attributes:
        sample_id: Its name.
        actual: Its class.
        predicted: The class that the model takes it for.
        probability: With which probability.
        frames: uint8 (T, H, W, 3), as they are shown.
        heads: The heads that were chosen.
        maps: The map (T, H, W) of each.
        product: That of the most relevant heads of two sites; None where there is one site.
        rollout: None where the family has none.
        score: By which the heads were chosen.
        split: The split whose scores these are.
    """

    sample_id: str
    actual: str
    predicted: str
    probability: float
    frames: Frames
    heads: ClipHeads
    maps: Mapping[Unit, Tensor]
    product: Tensor | None
    rollout: Tensor | None
    score: str
    split: str

    @property
    def title(self) -> str:
        return f"{self.actual}, predicted {self.predicted} ({self.probability:.0%})"

    @property
    def scored(self) -> str:
        """Say what the heads' scores are of."""
        if not self.heads.scored:
            return f"{self.score} on this clip"
        return f"{self.score}: mean of {self.heads.scored} {self.split} clips of its class"

    def grid(self) -> HeadGrid:
        """Draw ``heads``."""
        depths = [name for name in DEPTHS if any(head.depth == name for head in self.heads.extremes)]
        rows = []
        sites = _sites(self.heads)
        of_site = {site: site if len(sites) == 1 else f"{site} attention:" for site in sites}
        for site in sites:
            for extreme in ("most", "least"):
                found = {h.depth: h for h in self.heads.extremes if h.unit.site == site and h.choice == extreme}
                panels = tuple(self._panel(found[depth]) if depth in found else None for depth in depths)
                rows.append(Row(f"{site}\n{extreme} relevant", panels, f"{of_site[site]} weight of a cell"))
        note = f"{self.sample_id}   |   {self.scored}   |   {_PEAK}"
        return HeadGrid(self.frames, rows, [f"{depth} layers" for depth in depths], self.title, note)

    def strips(self) -> dict[str, list[Panel]]:
        """Return the maps of ``frames`` and of ``methods``, which is left out where it would be the same picture."""
        best = [self._panel(head, f"{head.unit.site}, most relevant: ") for head in best_heads(self.heads)]
        if self.product is not None:
            best.append(Panel(f"product: {' x '.join(_named(h.unit) for h in best_heads(self.heads))}", self.product))
        if self.rollout is not None:
            best.append(Panel("attention rollout, of all layers and heads", self.rollout))
        own = [
            self._panel(head, f"{head.unit.site}, specialised in {self.actual}: ") for head in self.heads.specialised
        ]
        if len(best) == 1 and best_heads(self.heads)[0].unit == self.heads.specialised[0].unit:
            return {"frames": own}  # the same map over the same frames
        return {"frames": own, "methods": best}

    def strip(self, panels: list[Panel]) -> Any:
        """Draw ``frames`` or ``methods`` as a figure."""
        note = f"{self.sample_id}   |   {self.scored}   |   {_AROUND}"
        return strip_figure(self.frames, panels, self.title, note)

    def video(self, panels: list[Panel]) -> Frames:
        """Draw ``frames`` or ``methods`` as a video."""
        return side_by_side(self.frames, panels)

    def captions(self) -> dict[str, str]:
        """Say in few words what each picture and the video of its name show; which heads is said in the picture."""
        depths = [name for name in DEPTHS if any(head.depth == name for head in self.heads.extremes)]
        heads = "heads" if len(self.heads.specialised) > 1 else "head"
        shown = {
            "heads": f"Attention of the most and the least relevant heads of {_listed(depths)} layers.",
            "frames": f"Attention of the {heads} most relevant to {self.actual}, frame by frame.",
        }
        if "methods" in self.strips():
            maps = [f"Attention of the most relevant {heads} of all layers"]
            maps += ["their product"] * (self.product is not None)
            maps += ["attention rollout"] * (self.rollout is not None)
            shown["methods"] = f"{_listed(maps)}, frame by frame."
        return {name: f"{text} Clip {self.sample_id}: {self.title}." for name, text in shown.items()}

    def table(self) -> list[dict[str, Any]]:
        """Return one row per head and reason to show it."""
        common = {"sample_id": self.sample_id, "class": self.actual, "predicted": self.predicted}
        return [
            {
                **common,
                "probability": self.probability,
                "site": head.unit.site,
                "depth": head.depth,
                "choice": head.choice,
                "layer": head.unit.layer,
                "head": head.unit.head,
                self.score: head.score,
                "scored_split": self.split,
                "scored_clips": self.heads.scored or 1,
            }
            for head in (*self.heads.extremes, *self.heads.specialised)
        ]

    def _panel(self, head: ShownHead, before: str = "") -> Panel:
        return Panel(before + self._described(head), self.maps[head.unit])

    def _described(self, head: ShownHead) -> str:
        return f"layer {head.unit.layer} head {head.unit.head}, {self.score} {head.score:.2g}"


def best_heads(heads: ClipHeads) -> list[ShownHead]:
    """Return the most relevant head of every site, out of all layers."""
    return [head for head in heads.extremes if head.depth == "all" and head.choice == "most"]


def _sites(heads: ClipHeads) -> list[str]:
    return list(dict.fromkeys(head.unit.site for head in heads.extremes))


def _listed(words: list[str]) -> str:
    """Join words as in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _named(unit: Unit) -> str:
    return f"{unit.site} layer {unit.layer} head {unit.head}"
