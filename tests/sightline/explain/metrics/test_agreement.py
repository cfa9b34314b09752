"""Agreement of two maps, by hand and against a slow way."""

import math

import pandas as pd
import pytest
import torch

from sightline.explain.metrics.agreement import map_agreement


def test_any_growing_scale_agrees_fully_and_the_reverse_not_at_all():
    values = torch.tensor([1.0, 5.0, 2.0, 9.0, 3.0, 7.0, 4.0, 8.0]).reshape(2, 2, 2)
    assert map_agreement(values, 100 * values**3) == pytest.approx(1)
    assert map_agreement(values, -values) == pytest.approx(-1)
    assert math.isnan(map_agreement(values, torch.ones(2, 2, 2)))


def test_ranks_of_four_pixels_by_hand():
    # Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 (1 + 1 + 1 + 1) / (4 (16 - 1)).
    ours, theirs = (torch.tensor(values).reshape(1, 2, 2) for values in ([0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 8.0, 3.0]))
    assert map_agreement(ours, theirs) == pytest.approx(0.6)


def test_repeated_cells_share_their_ranks():
    generator = torch.Generator().manual_seed(0)
    ours = torch.rand(4, 2, 2, generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    theirs = torch.rand(2, 4, 4, generator=generator).repeat_interleave(2, 0).repeat_interleave(2, 1)
    theirs = theirs.repeat_interleave(2, 2)
    ranks = [pd.Series(pixels.flatten().tolist()).rank() for pixels in (ours, theirs)]
    assert map_agreement(ours, theirs) == pytest.approx(ranks[0].corr(ranks[1]))
