"""Deletion, insertion and the like by hand, and on a classifier that reads one cell."""

import pytest
import torch

from sightline.explain.attribution.method import attribute
from sightline.explain.attribution.registry import read_method
from sightline.explain.attribution.scores import class_probability
from sightline.explain.attribution.tubelets import tubelet_grid, tubelet_ids
from sightline.explain.cell_map import CellMap
from sightline.explain.metrics.removal import (
    Parts,
    area,
    counts_of,
    curve,
    order_of,
    part_means,
    removal_metrics,
)
from sightline.explain.metrics.subsets import (
    agreement_metrics,
    infidelity,
    pearson,
    single_falls,
    subset_falls,
)
from sightline.types import InputSpec
from tests.sightline.explain.reading import GRID, STRAIGHT, THROUGH_ATTENTION, clips, reader

# One frame of 1x4 pixels, one part each; a clip of which part i is worth 2^-(i+1), scored by what is white.
IDS = torch.arange(4).view(1, 1, 4)
PARTS = Parts(IDS, 4)
WHITE = torch.ones(1, 3, 1, 1, 4)
WORTH = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)


def worth(variants):
    """The sum of what is still white; frozen parts show the first frame, so that only blur is used here."""
    return (variants[:, 0, 0, 0] > 0.5).double() @ WORTH


@pytest.fixture(autouse=True)
def black_base(monkeypatch):
    monkeypatch.setattr("sightline.explain.attribution.tubelets.blurred", lambda clips: torch.zeros_like(clips))


def test_curves_by_hand():
    order = order_of(torch.tensor([4.0, 3.0, 2.0, 1.0]), seed=0)
    assert order.tolist() == [0, 1, 2, 3]
    counts = counts_of(4)
    assert counts == [0, 1, 2, 3, 4]
    gone = curve(worth, WHITE, order, PARTS, "blur", counts, insert=False)
    come = curve(worth, WHITE, order, PARTS, "blur", counts, insert=True)
    assert gone.tolist() == [1, 0.5, 0.25, 0.125, 0]
    assert come.tolist() == [0, 0.5, 0.75, 0.875, 1]
    # Trapezoids of width 1/4: (.5 + .5 + .25 + .125 + 0) / 4 with the ends halved.
    assert area(gone, counts) == pytest.approx((1 / 2 + 0.5 + 0.25 + 0.125) / 4)
    assert area(come, counts) == pytest.approx((0.5 + 0.75 + 0.875 + 1 / 2) / 4)


def test_all_of_them_by_hand():
    found = removal_metrics(worth, WHITE, torch.tensor([4.0, 3.0, 2.0, 1.0]), PARTS, "blur", seed=0)
    assert found["deletion"] == pytest.approx(0.34375)
    assert found["insertion"] == pytest.approx(0.65625)
    assert found["monotone_share"] == 1  # .125, .25, .5, 1
    # Of four parts the top 1, 5, 10 and 20 % are one part, and half of them are two.
    assert found["comprehensiveness"] == pytest.approx((4 * 0.5 + 0.75) / 5)
    assert found["sufficiency"] == pytest.approx((4 * 0.5 + 0.25) / 5)
    backwards = removal_metrics(worth, WHITE, torch.tensor([1.0, 2.0, 3.0, 4.0]), PARTS, "blur", seed=0)
    assert backwards["deletion"] > found["deletion"]
    assert backwards["insertion"] < found["insertion"]


def test_a_score_that_falls_when_parts_come_is_not_monotone():
    def against(variants):
        white = (variants[:, 0, 0, 0] > 0.5).double()
        return 0.5 + white @ torch.tensor([0.4, 0.1, -0.2, 0.1], dtype=torch.float64)

    found = removal_metrics(against, WHITE, torch.tensor([4.0, 3.0, 2.0, 1.0]), PARTS, "blur", seed=0)
    assert found["monotone_share"] == 0.75  # +.1, -.2, +.1, +.4


def test_rounding_is_no_fall():
    def flat(variants):
        return 0.5 - 1e-8 * (variants[:, 0, 0, 0] > 0.5).double().sum(dim=1)

    found = removal_metrics(flat, WHITE, torch.tensor([4.0, 3.0, 2.0, 1.0]), PARTS, "blur", seed=0)
    assert found["monotone_share"] == 1


def test_equal_parts_go_in_a_random_order():
    orders = {tuple(order_of(torch.zeros(4), seed).tolist()) for seed in range(40)}
    assert len(orders) > 10
    assert all(order[0] == 2 for order in (order_of(torch.tensor([0.0, 0, 1, 0]), s).tolist() for s in range(5)))
    assert order_of(torch.zeros(4), 3).tolist() == order_of(torch.zeros(4), 3).tolist()


def test_a_flat_map_scores_as_a_random_order_does_on_average():
    flat = [removal_metrics(worth, WHITE, torch.ones(4), PARTS, "blur", seed) for seed in range(300)]
    # On average k of four parts are worth k / 4: the curve is straight. Top 1 to 20 % are one part, half are two.
    expected = {"deletion": 0.5, "insertion": 0.5, "comprehensiveness": 0.3, "sufficiency": 0.7}
    for name, mean in expected.items():
        # Standard errors are below .007.
        assert sum(one[name] for one in flat) / 300 == pytest.approx(mean, abs=0.02)


def test_a_clip_of_one_part_has_one_step():
    one = Parts(torch.zeros(1, 1, 4, dtype=torch.int64), 1)
    found = removal_metrics(worth, WHITE, torch.tensor([2.0]), one, "blur", seed=0)
    assert found == {"deletion": 0.5, "insertion": 0.5, "monotone_share": 1, "comprehensiveness": 1, "sufficiency": 0}
    frozen = removal_metrics(worth, WHITE, torch.tensor([2.0]), one, "freeze", seed=0)
    assert frozen["deletion"] == frozen["insertion"] == 1  # one frame, frozen, is itself


def test_frozen_parts_show_the_last_frame_that_is_left():
    """Three frames of one pixel at 0, .5 and 1; a part is a frame, and the score is their sum."""
    clip = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3, 1, 1).expand(1, 3, 3, 1, 1)
    parts = Parts(torch.arange(3).view(3, 1, 1), 3)

    def score(variants):
        return variants[:, 0].double().sum(dim=(1, 2, 3))

    gone = curve(score, clip, torch.tensor([2, 1, 0]), parts, "freeze", [0, 1, 2, 3], insert=False)
    come = curve(score, clip, torch.tensor([1, 2, 0]), parts, "freeze", [0, 1, 2, 3], insert=True)
    assert gone.tolist() == [1.5, 1.0, 0.0, 0.0]  # 0 .5 1; 0 .5 .5; 0 0 0
    assert come.tolist() == [0.0, 1.0, 1.5, 1.5]  # 0 0 0; 0 .5 .5; 0 .5 1


def test_counts_name_each_number_once():
    assert counts_of(1) == [0, 1]
    assert counts_of(40) == list(range(0, 41, 2))
    assert len(counts_of(1568)) == 21


def test_means_of_parts_of_every_kind():
    cells = CellMap(torch.arange(8.0).view(1, 2, 2, 2), (1, 2, 2), InputSpec(2, 4, 4))
    ids = CellMap(torch.arange(8.0).view(1, 2, 2, 2), (1, 2, 2), InputSpec(2, 4, 4)).pixels()[0].long()
    grid = (2, 2, 2)
    assert part_means(cells, Parts.of("all", ids, grid)).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert part_means(cells, Parts.of("space", ids, grid)).tolist() == [[2, 3, 4, 5]]
    assert part_means(cells, Parts.of("time", ids, grid)).tolist() == [[1.5, 5.5]]
    with pytest.raises(ValueError, match="Expected parts of all, space, time, got 'frames'"):
        Parts.of("frames", ids, grid)


def test_agreement_by_hand():
    single = single_falls(worth, WHITE, PARTS, "blur")
    assert single.falls.tolist() == WORTH.tolist()
    subsets = subset_falls(worth, WHITE, PARTS, "blur", seed=0)
    assert subsets.masks.sum(dim=1).tolist() == [1] * 64
    found = agreement_metrics(WORTH * 3, single, subsets)
    assert found["faithfulness"] == pytest.approx(1)
    assert found["sensitivity_n"] == pytest.approx(1)
    assert found["infidelity"] == pytest.approx(0, abs=1e-12)
    worse = agreement_metrics(torch.tensor([1.0, 2.0, 3.0, 3.0]), single, subsets)
    # By hand: values - 2.25 = (-1.25, -.25, .75, .75), falls - .25 = (.25, 0, -.125, -.125).
    expected = (-1.25 * 0.25 - 2 * 0.75 * 0.125) / (2.75**0.5 * 0.09375**0.5)
    assert worse["faithfulness"] == pytest.approx(expected)
    assert worse["infidelity"] > 0
    constant = agreement_metrics(torch.ones(4), single, subsets)
    assert constant["faithfulness"] != constant["faithfulness"]  # no correlation of what is constant


def test_infidelity_by_hand_and_by_captum():
    from captum.metrics import infidelity as captums

    sums, falls = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)
    # The best scale is (1 + 2) / (1 + 4) = .6: ((.6 - 1)^2 + (1.2 - 1)^2) / 2 = .1.
    assert infidelity(sums, falls) == pytest.approx(0.1)
    values = torch.tensor([[0.4, 0.3, -0.1, 0.2]], dtype=torch.float64)
    masks = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)
    drawn = iter(masks)

    def perturb(there, *_):
        gone = torch.stack([next(drawn) for _ in range(len(there))])
        return gone, there - gone

    expected = captums(lambda there: there @ WORTH, perturb, torch.ones(1, 4, dtype=torch.float64), values,
                       n_perturb_samples=3, max_examples_per_batch=3, normalize=True)  # fmt: skip
    assert infidelity((masks * values).sum(dim=1), masks @ WORTH) == pytest.approx(float(expected))
    assert pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])) == pytest.approx(1)


@pytest.mark.parametrize("how", [STRAIGHT, THROUGH_ATTENTION])
def test_what_is_read_beats_what_is_not(how):
    """The map of the cell that is read against random and centre, on every metric."""
    backbone, shown = reader(how), clips(1)
    ids = tubelet_ids(tubelet_grid(backbone), backbone)
    parts = Parts.of("all", ids, GRID)
    one = torch.tensor([1])

    def score(variants):
        return class_probability(backbone, variants, one.expand(len(variants)))

    single, subsets = single_falls(score, shown, parts, "blur"), subset_falls(score, shown, parts, "blur", seed=1)
    found = {}
    for name in ("occlusion", "random", "centre", "motion"):
        [values] = part_means(attribute(read_method(name), backbone, shown, one).cells, parts)
        found[name] = removal_metrics(score, shown, values, parts, "blur", 0) | agreement_metrics(
            values, single, subsets
        )
    right = found.pop("occlusion")
    assert right["faithfulness"] == pytest.approx(1)
    assert right["sensitivity_n"] == pytest.approx(1)
    for control in ("random", "centre"):
        other = found[control]
        assert right["deletion"] < other["deletion"] - 0.02
        assert right["insertion"] > other["insertion"] + 0.02
        assert right["comprehensiveness"] > other["comprehensiveness"] + 0.02
        assert right["sufficiency"] < other["sufficiency"] - 0.02
        assert right["faithfulness"] > other["faithfulness"] + 0.5
        assert right["infidelity"] < other["infidelity"]
