"""How many tokens go where: the papers' counts, grids of every family, other grids."""

import math
from typing import Any

import pytest
import torch

from sightline.backbones import Backbone, build_backbone
from sightline.tokens import STA, trace
from sightline.tokens.sta.schedule import place_plans
from tests.conftest import DEMO_VARIANTS, randomise
from tests.sightline.tokens.small_models import double, made_up, some_clips


@pytest.mark.parametrize("r", [1, 2, 5])
def test_coarser_grids_lose_the_same_share_times_the_place(r):
    fake = made_up([(3, 4, 6), (3, 2, 3), (3, 1, 2)], refilled=True)
    gone = [sum(plan.before) - sum(plan.kept) for plan in place_plans(fake, r).values()]
    assert gone == [math.floor(3 * r * share + 0.5) for share in (1, 1.5 / 4, 2 / 12)]


def full(name: str, options: dict[str, Any] | None = None) -> Backbone:
    with torch.device("meta"):
        return build_backbone(name, 400, options)


def kept_at_places(backbone: Backbone, **options: Any) -> list[int]:
    return [sum(plan.kept) for plan in place_plans(backbone, **options).values()]


def test_a_vit_keeps_what_the_authors_code_keeps():
    vit = full("vit_base_videomae")
    assert kept_at_places(vit, r=64) == kept_at_places(vit) == [1056, 800, 672]
    assert kept_at_places(vit, r=64, frames="single") == [1056, 800, 672]
    assert [len(plan.kept) for plan in place_plans(vit, 64).values()] == [8, 4, 2]
    # Printed ablation: per original frame and place.
    assert kept_at_places(vit, r=48, schedule="constant") == kept_at_places(vit, schedule="48,48,48")
    assert kept_at_places(vit, r=27, schedule="increasing") == kept_at_places(vit, schedule="27,54,108")
    assert kept_at_places(vit, r=64, schedule="decreasing") == kept_at_places(vit, schedule="64,32,16")
    assert kept_at_places(vit, schedule="27,54,108") == [1352, 920, 56]
    assert [place.index for place in place_plans(full("vit_huge_videomae"), 64)] == [0, 10, 21]


@pytest.mark.parametrize(("r", "left"), [(192, (592, 124, 25)), (256, (528, 100, 17)), (320, (464, 76, 9))])
def test_a_swin_keeps_what_the_papers_costs_tell(r, left):
    swin = full("video_swin_s", {"frames": 32})
    assert swin.reduction_grids == ((16, 28, 28), (16, 14, 14), (16, 7, 7))
    for (place, plan), count in zip(place_plans(swin, r).items(), left, strict=True):
        assert place.kind == "stage"
        assert plan.kept == (count,) * 16
    assert place_plans(swin, 256) == place_plans(swin)


@torch.no_grad()
@pytest.mark.parametrize("name", DEMO_VARIANTS)
def test_grids_are_those_of_the_run(name):
    backbone = double(name)
    seen = {kept.place: kept.grid for kept in trace(backbone, some_clips(backbone, 1), STA())}
    assert tuple(seen.values()) == backbone.reduction_grids
    assert tuple(seen) == backbone.reduction_places


def test_odd_sides_are_merged_up():
    swin = randomise(build_backbone("video_swin_demo", 3, {"frames": 7, "size": 72}))
    seen = trace(swin, some_clips(swin, 1), STA())
    assert tuple(kept.grid for kept in seen) == swin.reduction_grids == ((4, 5, 5), (4, 3, 3))
