"""The share of a map in kept cells, by hand; maps on coarser grids."""

import pytest
import torch

from sightline.explain.cell_map import CellMap
from sightline.explain.metrics.kept_mass import covered_cells, kept_mass
from sightline.types import InputSpec

MAP = CellMap(torch.arange(16.0).view(1, 1, 4, 4), (2, 4, 4), InputSpec(2, 16, 16))


def test_by_hand():
    covered = covered_cells(torch.tensor([[15, -1, 1]]), (1, 4, 4))
    assert covered[0].nonzero().flatten().tolist() == [1, 15]
    assert kept_mass(MAP, covered, (1, 4, 4)).item() == pytest.approx(16 / 120)
    # On a grid half as fine, the lower right cell holds 10, 11, 14 and 15.
    assert kept_mass(MAP, covered_cells(torch.tensor([[3]]), (1, 2, 2)), (1, 2, 2)).item() == pytest.approx(50 / 120)
    everything = torch.ones(1, 4, dtype=torch.bool)
    assert kept_mass(MAP, everything, (1, 2, 2)).item() == 1
    assert kept_mass(CellMap(0 * MAP.values, MAP.cell, MAP.clip), everything, (1, 2, 2)).isnan().all()


def test_what_was_merged_is_kept():
    merged_into = torch.tensor([[0, 0, -1, 3]])
    assert covered_cells(torch.tensor([[0, 3]]), (1, 2, 2), merged_into).tolist() == [[True, True, False, True]]


def test_a_map_on_coarser_grids():
    coarse = MAP.at((1, 2, 2))
    assert coarse.values.flatten().tolist() == [0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 8 + 9 + 12 + 13, 10 + 11 + 14 + 15]
    assert (coarse.cell, coarse.clip) == ((2, 8, 8), MAP.clip)
    assert torch.equal(MAP.at((1, 4, 4)).values, MAP.values)
    # 5 rows make 3, the last of one row.
    odd = CellMap(torch.ones(2, 3, 5, 5), (1, 4, 4), InputSpec(3, 20, 20)).at((3, 3, 3))
    assert odd.values[1, 2].tolist() == [[4, 4, 2], [4, 4, 2], [2, 2, 1]]
    assert odd.cell == (1, 8, 8)


def test_random_cells_hold_their_share_on_average():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randperm(16, generator=generator)[:4] for _ in range(2000)])
    many = CellMap(MAP.values.expand(2000, -1, -1, -1), MAP.cell, MAP.clip)
    # Standard deviation of one draw .067, so of the mean .0015.
    assert kept_mass(many, covered_cells(drawn, (1, 4, 4)), (1, 4, 4)).mean().item() == pytest.approx(0.25, abs=0.006)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"covered as \(1, 4\) for this map, got \(2, 4\)"):
        kept_mass(MAP, torch.ones(2, 4, dtype=torch.bool), (1, 2, 2))
