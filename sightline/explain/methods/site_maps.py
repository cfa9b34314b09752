"""What the cells of one attention site receive, mean over its heads: the map that single-layer methods start from.

Shapes: B clips, G groups, h heads, q queries and k keys of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sightline.backbones import Backbone, Observation, Observer, run_steps
from sightline.explain.cell_map import CellMap


def layer_at(backbone: Backbone, layer: int) -> int:
    """Return the original index of a layer; negative ones count from the last that exists.

    Raises:
        ValueError: If there is no such layer.
    """
    existing = [info.index for info in backbone.layers]
    if layer < 0 and -layer <= len(existing):
        return existing[layer]
    if layer not in existing:
        known = ", ".join(map(str, existing)) or "none, all are removed"
        raise ValueError(f"{backbone.family} has no layer {layer}; its layers are {known}.")
    return layer


def sites_of(backbone: Backbone, layer: int) -> list[str]:
    """Return the names of a layer's attention sites that have heads left."""
    [info] = [info for info in backbone.layers if info.index == layer]
    return [site.name for site in info.sites if site.heads]


@torch.no_grad()
def observed_sites(backbone: Backbone, clips: Tensor, layer: int) -> dict[str, Observation]:
    """Run up to a layer's last site, and return what each of its sites did; other layers stay fused."""
    observer = Observer(attention=True, layers={layer})
    for step in run_steps(backbone, backbone.embed(clips), 0, layer + 1, observer=observer):
        if step.index == layer and step.layer is not None and step.site == step.layer.sites[-1].name:
            break
    return {name: seen for (_, name), seen in observer.sites.items() if seen.attention is not None}


def mean_map(backbone: Backbone, seen: Observation, weights: Tensor | None = None) -> CellMap:
    """Return what each cell receives of a site, mean over heads, or their sum by weights (B, h)."""
    assert seen.attention is not None
    assert seen.layout is not None
    attention = seen.attention.float()
    if weights is None:
        mean = attention.mean(dim=2)
    else:
        mean = torch.einsum("bghqk,bh->bgqk", attention, weights.to(attention))
    received = torch.matmul(seen.layout.query_weights.unsqueeze(2), mean).squeeze(2)
    return CellMap.of_keys(received, seen.layout, backbone.input_spec)


def space_and_time(maps: Sequence[CellMap]) -> tuple[CellMap, Tensor]:
    """Return a layer's map and how much each frame of cells receives, both with a sum of 1.

    Of one site the frames' shares are sums over space. Of two, the first attends in time and the second in space: the
    map is then the share of each cell within its frame, times the share of its frame.

    Args:
        maps: Those of a layer's sites, in the order in which they run.

    Returns:
        The map, and float32 (B, T).
    """
    space = maps[-1]
    within = _share(space.values, (2, 3))
    time = _share(maps[0].values.sum(dim=(2, 3)), (1,))
    return CellMap(within * time[:, :, None, None], space.cell, space.clip), time


def _share(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Divide by the sum over some dimensions; where that is 0, all parts are alike."""
    total = values.sum(dim=dims, keepdim=True)
    count = 1
    for dim in dims:
        count *= values.shape[dim]
    return torch.where(total > 0, values / total.clamp(min=torch.finfo(values.dtype).tiny), 1 / count)
