"""Attention of a single layer or head as an attribution: what the classifier's queries look at there.

It says where a layer looks and not what that has to do with a class: the map is the same whichever class is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sightline.backbones import Backbone
from sightline.explain.attribution.method import Attribution, Method, Passes
from sightline.explain.methods.head_maps import check_heads, head_maps
from sightline.explain.methods.rollout import check_square, rollout
from sightline.explain.methods.site_maps import layer_at, mean_map, observed_sites, sites_of, space_and_time
from sightline.types import Unit


@dataclass(frozen=True)
class LayerMethod(Method):
    """A method that reads the attention of one layer.

    Attributes:
        layer: Original index; negative ones count from the last layer that exists.
    """

    layer: int = -1

    def check(self, backbone: Backbone) -> None:
        if not backbone.layers:
            raise ValueError(f"{self.name} needs at least one layer, got a backbone of which all are removed.")
        layer = layer_at(backbone, self.layer)
        if not sites_of(backbone, layer):
            raise ValueError(f"Layer {layer} of {backbone.family} has no heads left; choose another layer.")

    def passes(self, backbone: Backbone) -> Passes:
        """Return what running up to the layer costs."""
        before = [info.index for info in backbone.layers].index(layer_at(backbone, self.layer)) + 1
        return Passes(forward=before / len(backbone.layers))


@dataclass(frozen=True)
class RawAttention(LayerMethod):
    """Raw attention: the mean over the heads of one layer, the last by default."""

    name: ClassVar[str] = "raw"

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        seen = observed_sites(backbone, clips, layer_at(backbone, self.layer))
        cells, time = space_and_time([mean_map(backbone, site) for site in seen.values()])
        return Attribution(cells, time if len(seen) > 1 else None, self.passes(backbone))


@dataclass(frozen=True)
class HeadAttention(LayerMethod):
    """The map of one head.

    Attributes:
        site: Name of its site; the layer's last if empty.
        head: Original index of the head.
    """

    name: ClassVar[str] = "head"
    site: str = ""
    head: int = 0

    def check(self, backbone: Backbone) -> None:
        super().check(backbone)
        check_heads(backbone, [self._unit(backbone)])

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        unit = self._unit(backbone)
        return Attribution(head_maps(backbone, clips, [unit])[unit], passes=self.passes(backbone))

    def _unit(self, backbone: Backbone) -> Unit:
        layer = layer_at(backbone, self.layer)
        return Unit(layer, self.site or sites_of(backbone, layer)[-1], self.head)


@dataclass(frozen=True)
class Rollout(Method):
    """Attention rollout (Abnar and Zuidema, 2020), see `sightline.explain.methods.rollout`."""

    name: ClassVar[str] = "rollout"

    def check(self, backbone: Backbone) -> None:
        check_square(backbone)

    def attribute(self, backbone: Backbone, clips: Tensor, targets: Tensor) -> Attribution:
        return Attribution(rollout(backbone, clips), passes=Passes(forward=1))
