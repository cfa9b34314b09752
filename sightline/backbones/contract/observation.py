"""What an attention site hands on, and what a run keeps of it for whoever asked.

Shapes: B clips, N tokens, D width, L positions of a site in the site's own order, h heads of a site, d width of a head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sightline.backbones.contract.layout import AttentionLayout

# Factor of every head of a site, (h,) or (B, h), by (layer, site).
Gates = Mapping[tuple[int, str], Tensor]
# What a site computes of every token before it attends.
Feature = Literal["keys", "queries", "values"]
FEATURES: tuple[Feature, ...] = get_args(Feature)


@dataclass(frozen=True)
class HeadOutputs:
    """What one attention site has computed, before its output projection.

    Attributes:
        heads: H_h = A_h V_h for every head that exists, (B, L, h, d).
        residual: What is added to the heads before the projection and is not attention (MViTv2's pooled query), one
            for every head that the site was built with, (B, L, h_built, d); None in the families without such a term.
        places: Place of each head that exists among those that the site was built with; None where all exist or where
            a removed head leaves no residual behind.
        normalised: The tokens after the site's LayerNorm, (B, N, D), where the skip path reads them too (MViTv2).
        class_only: Whether these are the heads at the class tokens' positions alone, see `Layer.attend_class`.
        attention: Softmax weights, (B, groups, h, queries, keys), if asked for; a group is a window, a frame or a
            place, and 1 where attention is joint.
        keys: (B, groups, h, keys, d), if asked for.
        features: What was asked for of each token, in the order of the tokens after the site, (B, N, h, d).
    """

    heads: Tensor
    residual: Tensor | None = None
    places: tuple[int, ...] | None = None
    normalised: Tensor | None = None
    class_only: bool = False
    attention: Tensor | None = None
    keys: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def gated(self, gate: Tensor) -> HeadOutputs:
        """Multiply each head by its gate, (h,) or one row per clip (B, h)."""
        shape = (1, 1, -1, 1) if gate.dim() == 1 else (gate.shape[0], 1, -1, 1)
        return replace(self, heads=self.heads * gate.to(self.heads).reshape(shape))

    def merged(self) -> Tensor:
        """Return the concatenation that the output projection reads, (B, L, h * d)."""
        if self.residual is None:
            return self.heads.flatten(2)
        if self.places is None:
            return (self.heads + self.residual).flatten(2)
        places = torch.tensor(self.places, dtype=torch.long, device=self.heads.device)
        return self.residual.index_add(2, places, self.heads.to(self.residual.dtype)).flatten(2)


@dataclass
class Observation:
    """What was asked for of one site. Differentiable where gradients are on.

    Attributes:
        heads: H_h, (B, L, h, d).
        attention: Softmax weights, as in `HeadOutputs`.
        keys: Likewise.
        layout: Where these keys lie in the clip; comes with attention and keys.
    """

    heads: Tensor | None = None
    attention: Tensor | None = None
    keys: Tensor | None = None
    layout: AttentionLayout | None = None


@dataclass
class Observer:
    """Names what a run is to keep, and holds it afterwards. Layers that it does not name stay fused.

    Example:
        observer = Observer(attention=True, layers={3})
        backbone(clips, observer=observer)
        weights = observer.sites[3, "attention"].attention

    Attributes:
        heads: Keep H_h.
        attention: Keep the softmax weights.
        keys: Keep the keys.
        layers: Original indices of the layers to observe; all if None.
        sites: What was kept, by layer and site.
    """

    heads: bool = False
    attention: bool = False
    keys: bool = False
    layers: Collection[int] | None = None
    sites: dict[tuple[int, str], Observation] = field(default_factory=dict)

    def watches(self, layer: int) -> bool:
        """Whether anything of this layer is to be kept."""
        return (self.layers is None or layer in self.layers) and (self.heads or self.attention or self.keys)

    def site(self, layer: int, name: str) -> Observation:
        """Return what is kept of a site, to be filled in."""
        return self.sites.setdefault((layer, name), Observation())
