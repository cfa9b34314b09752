"""Small models and clips for tests of token reductions."""

from types import SimpleNamespace
from typing import cast

import torch

from sightline.backbones import Backbone, Place, build_backbone
from tests.conftest import randomise


def double(name: str) -> Backbone:
    """A small model in double precision, in which no two scores are close enough to be taken for each other."""
    size = 48 if name in ("mvit_demo", "vit_demo") else 64
    return randomise(build_backbone(name, 7, {"size": size, "width": 24})).double()


def some_clips(backbone: Backbone, count: int = 2) -> torch.Tensor:
    spec = backbone.input_spec
    shape = (count, 3, spec.frames, spec.height, spec.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


def made_up(grids: list[tuple[int, int, int]], refilled: bool) -> Backbone:
    """What a schedule asks of a backbone, for grids that no family has."""
    places = tuple(Place("layer", index) for index in range(len(grids)))
    return cast(
        Backbone,
        SimpleNamespace(
            family="made-up", reduction_places=places, reduction_grids=tuple(grids), refilled=refilled, depth=9
        ),
    )
