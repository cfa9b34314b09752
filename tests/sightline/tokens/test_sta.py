"""STA chooses what a literal implementation chooses, and what was computed by hand."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from sightline.backbones import Backbone, TokenState
from sightline.tokens import STA
from sightline.tokens.sta.schedule import largest_r
from sightline.tokens.sta.score import Seen, accumulated, choose, first_by_grid, first_by_matching, semantic_strength
from tests.conftest import DEMO_VARIANTS
from tests.sightline.tokens.small_models import double, made_up, some_clips
from tests.sightline.tokens.sta_literal import Beside, asked_beside

OTHERS: dict[str, dict[str, Any]] = {
    "default": {},
    "none": {"r": 0},
    "few": {"r": 1},
    "grid first": {"first": "grid"},
    "random first": {"first": "random", "seed": 3},
    "bfb": {"order": "bfb"},
    "fff": {"order": "fff"},
    "bbb": {"order": "bbb"},
    "queries": {"similarity": "queries"},
    "values": {"similarity": "values"},
    "output": {"similarity": "mlp"},
    "constant": {"schedule": "constant", "r": 4},
    "decreasing": {"schedule": "decreasing", "r": 5},
    "increasing": {"schedule": "increasing", "r": 2},
    "rising": {"schedule": "rising", "r": 3},
    "accumulation": {"score": "accumulation"},
    "semantics": {"score": "semantics"},
    "super": {"frames": "super"},
    "single": {"frames": "single", "r": 5},
    "kept": {"previous": "kept"},
    "all at once": {"first": "grid", "order": "bfb", "score": "accumulation", "frames": "single", "previous": "kept"},
}


@pytest.fixture(scope="module", params=DEMO_VARIANTS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return double(request.param)


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_every_option_does_what_the_literal_implementation_does(backbone, options):
    if options.get("similarity") == "queries" and "queries" not in backbone.shown_features:
        with pytest.raises(ValueError, match="can show a reducer keys, values of its tokens, not queries"):
            asked_beside(backbone, some_clips(backbone), STA(**options))
        return
    assert asked_beside(backbone, some_clips(backbone), STA(**options)) == list(backbone.reduction_places)


def test_a_list_of_numbers_does_too(backbone):
    schedule = ",".join(["2", "3", "1"][: len(backbone.reduction_places)])
    for frames in ("super", "single"):
        reducer = STA(schedule=schedule, frames=frames)
        assert asked_beside(backbone, some_clips(backbone), reducer) == list(backbone.reduction_places)


def test_every_amount_keeps_a_token_in_every_frame(backbone):
    amounts = STA().amounts(backbone)
    assert [amount.r for amount in amounts] == list(range(largest_r(backbone) + 1))
    for amount in (amounts[0], amounts[-1]):
        assert asked_beside(backbone, some_clips(backbone, 1), amount) == list(backbone.reduction_places)
    with pytest.raises(ValueError, match=f"The largest r for {backbone.family} here is {amounts[-1].r}, got"):
        STA(r=amounts[-1].r + 1).fitted(backbone)


@pytest.mark.parametrize("frames", ["super", "single"])
@pytest.mark.parametrize("grid", [(5, 3, 4), (6, 5, 3), (7, 4, 5), (1, 4, 4), (3, 2, 7)])
@pytest.mark.parametrize("r", [1, 3, 5])
def test_grids_that_divide_into_nothing(grid, frames, r):
    """Odd numbers of frames and of tokens, with class tokens, at all places one after the other."""
    generator = torch.Generator().manual_seed(r)
    t, h, w = grid
    fake = made_up([grid] * 3, refilled=False)
    reducer = Beside(STA(r=r, frames=frames)).fitted(fake)
    state = TokenState(torch.zeros(2, 2 + t * h * w, 6, dtype=torch.float64), grid, class_tokens=2)
    for number, place in enumerate(fake.reduction_places):
        shape = (*state.tokens.shape[:2], 2, 5)
        keys = torch.randn(shape, generator=generator, dtype=torch.float64)
        tokens = torch.randn(state.tokens.shape, generator=generator, dtype=torch.float64)
        state = dataclasses.replace(state, tokens=tokens, features={"keys": keys})
        selection = reducer.reduce(place, state)
        state = state if selection is None else state.select(selection.cells)
        # Of a frame r, r / 2 and r / 4 go, whatever the frames are read as.
        gone = sum(math.floor(t * r / 2**step + 0.5) for step in range(number + 1))
        assert state.patches == t * h * w - gone


def test_two_frames_by_hand():
    """Three tokens in each of two frames, unit vectors at right angles or equal: cosines are 0 or 1."""
    x, y = [1.0, 0.0], [0.0, 1.0]
    similar = torch.tensor([[x, y, y, y, x, x]], dtype=torch.float64)
    strength = torch.tensor([[1.0, 1.0, 1.0, 4.0, 3.0, 2.0]], dtype=torch.float64)
    e = math.e
    # Columns: of x, exp(0, 1, 1) over 1 + 2e; of y, exp(1, 0, 0) over e + 2. The first frame has one x and two y.
    s = [1 / (1 + 2 * e) + 2 * e / (e + 2), *[e / (1 + 2 * e) + 2 / (e + 2)] * 2]
    found = accumulated(similar[:, 3:], similar[:, :3], torch.ones(1, 3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([s], dtype=torch.float64))
    assert sum(s) == pytest.approx(3)  # as much as there was
    assert semantic_strength(strength[:, 3:]).tolist() == [[1.0, 0.5, 0.0]]
    seen = Seen(similar, strength, torch.arange(6).expand(1, -1))
    # First frame: the even tokens 0 (x) and 2 (y) face the odd 1 (y), so 2 goes. Second: scores 0, s/2, s.
    cases = {"both": [1, 0, 3, 4], "accumulation": [1, 0, 4, 5], "semantics": [1, 0, 3, 4]}
    for score, expected in cases.items():
        assert choose(seen, (3, 3), (2, 2), first_by_matching, score=score).tolist() == [expected]
    # Compared with what was kept, x and y, s is 1/(1+2e) + e/(e+2) for y and e/(1+2e) + 1/(e+2) for x: y goes as well.
    found = choose(seen, (3, 3), (2, 2), first_by_matching, score="accumulation", previous="kept")
    assert found.tolist() == [[1, 0, 4, 5]]


def test_the_first_frame_by_hand():
    angles = torch.tensor([[0.0, 0.2, 1.0, 1.1, 2.0, 2.6]], dtype=torch.float64)
    seen = Seen(torch.stack((angles.cos(), angles.sin()), dim=2), torch.ones(1, 6), torch.arange(6).expand(1, -1))
    # Nearest odd angles: 0 -> 0.2 (0.2 apart), 2 -> 1.1 (0.1), 4 -> 2.6 (0.6): least alike is 4, then 0, then 2.
    assert first_by_matching(seen, 6).tolist() == [[1, 3, 5, 4, 0, 2]]
    assert first_by_matching(seen, 4).tolist() == [[1, 3, 5, 4]]
    assert first_by_matching(seen, 3).tolist() == [[1, 3, 5]]
    # Four cannot go by matching: two of six stay, in the middle of each half.
    assert first_by_matching(seen, 2).tolist() == first_by_grid(seen, 2).tolist() == [[1, 4]]


def test_equal_strengths_count_as_weak_and_earlier_tokens_stay():
    seen = Seen(torch.ones(1, 6, 1), torch.ones(1, 6), torch.arange(6).expand(1, -1))
    assert semantic_strength(seen.strength).tolist() == [[0.0] * 6]
    assert choose(seen, (3, 3), (2, 1), first_by_matching).tolist() == [[1, 0, 3]]
