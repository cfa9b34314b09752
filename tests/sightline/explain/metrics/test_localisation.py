"""Rank accuracy, segmentation, tracking and brightness by hand."""

import math

import pytest
import torch

from sightline.explain.metrics.brightness import mass_at, rank_at, with_spots
from sightline.explain.metrics.localisation import rank_accuracy, segmentation, segmentation_chance
from sightline.explain.metrics.tracking import track


def test_rank_accuracy_by_hand():
    maps = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    marked = torch.tensor([[[True, False, True, False], [False, False, False, False]]] * 2)
    found = rank_accuracy(maps, marked)
    assert found[0, 0] == 0.5  # of the two highest, one
    assert found[1, 0] == 0.5  # all tie: the share of the places that is marked
    assert found[:, 1].isnan().all()


def test_ties_at_the_limit_count_in_part():
    maps = torch.tensor([[5.0, 1.0, 1.0, 1.0, 0.0]])
    marked = torch.tensor([[[True, True, False, False, False]]])
    # The highest is in; of the three that tie for the second place, one is: 1 + 1/3 of 2.
    assert float(rank_accuracy(maps, marked)) == pytest.approx((1 + 1 / 3) / 2)


def test_segmentation_by_hand():
    maps = torch.tensor([[4.0, 4.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    masks = torch.tensor([[True, False, False, False], [True, False, False, False], [False] * 4])
    found = segmentation(maps, masks)
    assert found["pixel_accuracy"][:2].tolist() == [0.75, 1]
    assert found["mean_accuracy"][:2].tolist() == pytest.approx([(1 + 2 / 3) / 2, 1])
    assert found["mean_iou"][:2].tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2, 1])
    assert all(values[2].isnan() for values in found.values())


def test_chance_of_a_segmentation_by_hand():
    # Above the mean of 2: the first place and the second; marked: the first. At random, each of four is found by 1/2.
    maps, masks = torch.tensor([[4.0, 3.0, 1.0, 0.0]]), torch.tensor([[True, False, False, False]])
    found = segmentation_chance(maps, masks)
    assert float(found["pixel_accuracy"]) == pytest.approx(1 / 2)
    assert float(found["mean_accuracy"]) == pytest.approx(1 / 2)
    # Object: 1/2 of a place hit of 2 + 1 - 1/2; background: 3/2 of 2 + 3 - 3/2.
    assert float(found["mean_iou"]) == pytest.approx((0.5 / 2.5 + 1.5 / 3.5) / 2)


def test_a_flat_map_finds_nothing_and_scores_as_chance_does():
    maps = torch.full((1, 49), 0.1)  # whose mean is rounded
    masks = torch.arange(49)[None] < 7
    found, chance = segmentation(maps, masks), segmentation_chance(maps, masks)
    assert float(found["pixel_accuracy"]) == pytest.approx(42 / 49)
    assert float(found["mean_accuracy"]) == 0.5
    assert float(found["mean_iou"]) == pytest.approx(42 / 49 / 2)
    assert {name: float(score) for name, score in found.items()} == {name: float(s) for name, s in chance.items()}


def test_random_maps_segment_as_chance_does():
    maps = torch.rand(400, 60, generator=torch.Generator().manual_seed(0))
    masks = (torch.arange(60) < 9).expand(400, 60)
    found, chance = segmentation(maps, masks), segmentation_chance(maps, masks)
    for name, score in found.items():
        # Standard errors are about .004; the mean of a ratio (IoU) is not quite the ratio of means.
        assert float(score.mean()) == pytest.approx(float(chance[name].mean()), abs=0.015)


def test_tracking_by_hand():
    own = torch.zeros(3, 4, 4)
    own[0, 0, 0], own[1, 3, 3], own[2, 1, 1], own[2, 0, 0] = 1.0, 2.0, 1.0, 1.0
    target = torch.zeros(3, 4, 4, dtype=torch.bool)
    target[0, 0, 0] = target[1, 0, 0] = target[2, 0, 0] = True
    found = track(own, target)
    assert found.on_target == pytest.approx((1 + 0 + 0.5) / 3)
    diagonal = math.hypot(4, 4)
    assert found.drift == pytest.approx((0 + math.hypot(3, 3) / diagonal + math.hypot(1, 1) / diagonal / 2) / 3)
    assert found.strongest_two == pytest.approx(4 / 5)
    assert found.frames == 3


def test_a_clip_of_one_frame_has_all_its_sum_in_it():
    target = torch.zeros(1, 2, 2, dtype=torch.bool)
    target[0, 0, 0] = True
    found = track(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), target)
    assert (found.on_target, found.drift, found.strongest_two, found.frames) == (1, 0, 1, 1)
    spotted = with_spots(torch.full((1, 3, 1, 4, 4), 0.5), (1, 2, 2), torch.tensor([[[True, False], [True, True]]]))
    assert spotted.places.tolist() == [1]


def test_frames_without_the_target_do_not_count():
    target = torch.zeros(2, 2, 2, dtype=torch.bool)
    uniform = track(torch.ones(2, 2, 2), target)
    assert (uniform.frames, uniform.strongest_two) == (0, 1)
    assert math.isnan(uniform.on_target)
    target[1, 0] = True
    assert track(torch.ones(2, 2, 2), target).on_target == pytest.approx(0.5)  # the box's share


def test_a_spot_is_painted_where_least_moves():
    clips = torch.rand(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.2
    clips[..., 0:4, 0:4] = 0.1  # still and dark, but taken
    clips[..., 8:12, 4:8] = 0.15  # still and dark
    clips[..., 12:16, 12:16] = 0.9  # still and bright
    taken = torch.zeros(1, 4, 4, dtype=torch.bool)
    taken[0, 0, 0] = True
    found = with_spots(clips, (4, 4, 4), taken)
    assert found.places.tolist() == [2 * 4 + 1]
    assert found.found.tolist() == [True]
    assert bool((found.clips[..., 8:12, 4:8] == 1).all())
    changed = (found.clips != clips).any(dim=1)[0]
    assert int(changed.sum()) == 4 * 16
    nowhere = with_spots(clips, (4, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
    assert nowhere.found.tolist() == [False]
    assert torch.equal(nowhere.clips, clips)


def test_mass_and_rank_at_a_place():
    values = torch.tensor([[1.0, 0.0, 2.0, -5.0, 1.0, 0.0, 2.0, 4.0]])  # two frames of 1x4 places
    assert float(mass_at(values, torch.tensor([2]), (2, 1, 4))) == pytest.approx(4 / 10)
    # Sums over time: 2, 0, 4, -1.
    assert float(rank_at(values, torch.tensor([2]), (2, 1, 4))) == 1
    assert float(rank_at(values, torch.tensor([0]), (2, 1, 4))) == pytest.approx(2 / 3)
    assert float(rank_at(torch.zeros(1, 8), torch.tensor([0]), (2, 1, 4))) == 0.5
