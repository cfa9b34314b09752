"""Pointing scores: hand-computed answers, and a slow obvious implementation beside the fast one."""

import math

import numpy as np
import pytest
import torch

from sightline.explain.metrics.pointing import (
    check_maps,
    clip_targets,
    mass_inside,
    peak_inside,
    pointing_scores,
)
from sightline.types import Box, ClipTruth


def truth_of(*boxes, acting=()):
    return ClipTruth(tuple(Box(*box) for box in boxes), tuple(acting))


def slow_scores(pixels, inside):
    """(expected hit, share) of one map given as nested numbers, place by place."""
    highest = max(pixels.values())
    peaks = [place for place, value in pixels.items() if value == highest]
    hit = sum(place in inside for place in peaks) / len(peaks)
    share = sum(value for place, value in pixels.items() if place in inside) / sum(pixels.values())
    return hit, share


def slow_inside(boxes, name, shape, tolerance):
    frames, height, width = shape
    found = set()
    for t in range(frames):
        for y in range(height):
            for x in range(width):
                for box in boxes:
                    if box.name != name or box.frame != t:
                        continue
                    cx, cy = x + 0.5, y + 0.5
                    nearest = min(max(cx, box.x0), box.x1), min(max(cy, box.y0), box.y1)
                    if math.dist((cx, cy), nearest) <= tolerance:
                        found.add((t, y, x))
    return found


# ------------------------------------------------------------------ by hand


def test_a_peak_counts_in_the_box_of_its_own_frame_only():
    truth = truth_of(("hand", 0, 0, 0, 2, 2), ("hand", 1, 2, 2, 4, 4))
    targets = clip_targets([truth] * 3, 2, 4, 4)
    maps = torch.full((3, 2, 4, 4), 0.1)
    maps[0, 0, 1, 1] = 1  # in the box of frame 0
    maps[1, 0, 3, 3] = 1  # in the box of frame 1, but in frame 0
    maps[2, 1, 2, 3] = 1  # in the box of frame 1: row 2, column 3
    pointing, share = pointing_scores(maps, targets)
    assert pointing[:, 0].tolist() == [1, 0, 1]
    # 8 of 32 pixels are inside; the sum is 31 x .1 + 1.
    assert share[:, 0].tolist() == pytest.approx([1.7 / 4.1, 0.8 / 4.1, 1.7 / 4.1])


def test_tied_peaks_share_the_hit():
    targets = clip_targets([truth_of(("hand", 0, 0, 0, 4, 1))] * 2, 1, 4, 4)
    maps = torch.zeros(2, 1, 4, 4)
    maps[0, 0, 0, 0], maps[0, 0, 1, 0], maps[0, 0, 2, 0] = 1, 1, 1  # one of three in the box
    maps[1] = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) * 1e-8 + 0.25  # equal, but for rounding
    pointing, _ = pointing_scores(maps, targets)
    assert pointing[:, 0].tolist() == pytest.approx([1 / 3, 4 / 16])


def test_a_uniform_map_gets_the_area_and_the_share_of_the_actions_frames():
    truth = truth_of(("hand", 0, 0, 0, 2, 3), ("head", 2, 0, 0, 4, 4), acting=[True, False, False, False])
    targets = clip_targets([truth], 4, 4, 4)
    pointing, share = pointing_scores(torch.full((1, 4, 4, 4), 0.7), targets)
    assert targets.names == ("hand", "head")
    for score in (pointing, share):
        assert score[0].tolist() == pytest.approx([6 / 64, 16 / 64, 1 / 4])


def test_boxes_of_one_name_are_one_target_and_overlaps_count_once():
    targets = clip_targets([truth_of(("hand", 0, 0, 0, 2, 2), ("hand", 0, 1, 1, 3, 3))], 1, 4, 4)
    assert targets.inside.sum() == 7


def test_the_tolerance_reaches_round_corners():
    box = ("hand", 0, 2, 2, 4, 4)
    targets = clip_targets([truth_of(box)], 1, 6, 6, tolerance=0.6)
    # Centres half a pixel beside a side are near; those beyond a corner are .71 away.
    assert targets.near[0, 0, 0].int().tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert targets.inside.sum() == 4
    maps = torch.zeros(1, 1, 6, 6)
    maps[0, 0, 1, 2] = 1
    pointing, share = pointing_scores(maps, targets)
    assert (pointing[0, 0], share[0, 0]) == (1, 0)  # the share knows no tolerance
    assert clip_targets([truth_of(box)], 1, 6, 6, tolerance=0.75).near.sum() == 16


def test_temporal_pointing_takes_the_frame_with_most_in_sum():
    targets = clip_targets([truth_of(acting=[False, True, True, False])] * 3, 4, 2, 2)
    maps = torch.full((3, 4, 2, 2), 0.1)
    maps[0, 0, 0, 0] = 0.5  # the highest pixel is in frame 0 ...
    maps[0, 1] = 0.4  # ... but frame 1 has more in sum
    maps[1, 3] = 0.4
    maps[2, 2:] = 0.4  # frames 2 and 3 tie
    pointing, share = pointing_scores(maps, targets)
    assert pointing[:, 0].tolist() == [1, 0, 0.5]
    assert share[:, 0].tolist() == pytest.approx([2 / 3.2, 0.8 / 2.8, 2 / 4])


def test_what_a_clip_does_not_show_and_trivial_actions_do_not_count():
    truths = [
        truth_of(("hand", 0, 0, 0, 2, 2), acting=[True, True]),
        truth_of(("head", 1, 0, 0, 2, 2), acting=[True, False]),
        truth_of(("hand", 1, 0.6, 0.6, 0.9, 0.9)),  # holds no pixel's centre
    ]
    targets = clip_targets(truths, 2, 4, 4)
    assert targets.names == ("hand", "head")
    assert targets.shown.tolist() == [[True, False], [False, True], [False, False]]
    assert targets.timed.tolist() == [False, True, False]


# ------------------------------------------------------------------ against the slow one


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance", [0.0, 1.3])
def test_scores_are_those_counted_place_by_place(seed, tolerance):
    rng = np.random.default_rng(seed)
    shape = (3, 5, 6)
    truths = []
    for _ in range(4):
        boxes = []
        for name in ("hand", "hand", "head"):
            x, y = rng.uniform(0, 6, 2), rng.uniform(0, 5, 2)
            boxes.append((name, int(rng.integers(3)), x.min(), y.min(), x.max(), y.max()))
        truths.append(truth_of(*boxes, acting=rng.random(3) < 0.5))
    maps = torch.tensor(rng.integers(0, 4, (4, *shape)), dtype=torch.float32)  # few levels: many ties
    maps[:, 0, 0, 0] += 0.5
    targets = clip_targets(truths, *shape, tolerance)
    pointing, share = pointing_scores(maps, targets)
    checked = 0
    for clip, truth in enumerate(truths):
        pixels = {place: float(value) for place, value in np.ndenumerate(maps[clip].numpy())}
        for k, name in enumerate(targets.names):
            near, inside = (slow_inside(truth.boxes, name, shape, reach) for reach in (tolerance, 0.0))
            assert bool(targets.shown[clip, k]) == bool(inside)
            assert float(pointing[clip, k]) == pytest.approx(slow_scores(pixels, near)[0])
            assert float(share[clip, k]) == pytest.approx(slow_scores(pixels, inside)[1])
            checked += bool(inside)
        frames = {t: float(maps[clip, t].sum()) for t in range(3)}
        acting = {t for t in range(3) if truth.acting[t]}
        assert (float(pointing[clip, -1]), float(share[clip, -1])) == pytest.approx(slow_scores(frames, acting))
    assert checked > 4


def test_scores_do_not_depend_on_the_batch_or_on_the_maps_scale():
    generator = torch.Generator().manual_seed(0)
    maps, marked = torch.rand(5, 40, generator=generator), torch.rand(5, 3, 40, generator=generator) < 0.3
    for score in (peak_inside, mass_inside):
        whole = score(maps, marked)
        for clip in range(5):
            assert torch.equal(score(maps[clip : clip + 1], marked[clip : clip + 1])[0], whole[clip])
        torch.testing.assert_close(score(maps * 1e-4, marked), whole)  # exact but for float32's rounding of the product


def test_the_peak_of_random_maps_is_inside_as_often_as_the_area_says():
    maps = torch.rand(4000, 50, generator=torch.Generator().manual_seed(0))
    marked = (torch.arange(50) < 10).expand(4000, 1, 50)
    # Standard error of a share of 4,000 at .2: .0063.
    assert float(peak_inside(maps, marked).mean()) == pytest.approx(0.2, abs=0.025)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.ones(2, 3, 4, 5), r"Expected maps \(B, T, H, W\) of \(2, 3, 4, 4\) for layer 1 spatial head 2, got"),
        (torch.zeros(2, 3, 4, 4), "nowhere all zero"),
        (torch.full((2, 3, 4, 4), math.nan), "finite"),
        (torch.ones(2, 3, 4, 4) - 1.5 * torch.eye(4), "not negative"),
    ],
)
def test_maps_that_are_none_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        check_maps(maps, (2, 3, 4, 4), "layer 1 spatial head 2")


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="tolerance of 0 pixels or more, got -1"):
        clip_targets([], 1, 1, 1, -1)


def test_the_peak_of_a_map_that_is_below_zero_everywhere_is_its_highest_place():
    maps = torch.tensor([[-3.0, -1.0, -2.0, -1.0], [0.0, 0.0, -1.0, -1.0]])
    marked = torch.tensor([[[False, True, False, False]], [[True, False, False, False]]])
    assert peak_inside(maps, marked).tolist() == [[0.5], [0.5]]
