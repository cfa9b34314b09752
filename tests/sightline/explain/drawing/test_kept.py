"""Kept cells are as they are, dropped ones are not, and merged ones have one colour."""

import numpy as np
import pytest
import torch

from sightline.explain.drawing.kept import kept_overlay

FRAMES = np.full((4, 8, 8, 3), 100, dtype=np.uint8)
OWN = torch.arange(8).view(2, 2, 2)


def inside(drawn, frame: int, row: int, column: int) -> list[int]:
    """The colour in the middle of a cell of 4 x 4 pixels, enlarged three times."""
    return drawn[frame, row * 12 + 6, column * 12 + 6].tolist()


def test_dropped_cells_are_dark_blue_and_lines_part_all_cells():
    token_of = OWN.clone()
    token_of[0, 0, 1] = -1
    drawn = kept_overlay(FRAMES, token_of, (2, 4, 4), 3)
    assert drawn.shape == (4, 24, 24, 3)
    for frame in range(4):
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            found = inside(drawn, frame, row, column)
            if frame < 2 and (row, column) == (0, 1):
                assert max(found[:2]) < 60
                assert found[2] > found[0] + 30
            else:
                assert found == [100, 100, 100]
    # Between kept cells a faint line of one pixel; between a kept and a dropped one a bright one.
    assert drawn[3, 3, 11:14, 0].tolist() == [100, 108, 100]
    assert drawn[0, 3, 12].min() > 190
    assert drawn[0, 3, 11].tolist() == [100, 100, 100]


def test_merged_cells_have_one_colour_and_no_line_between_them():
    token_of = OWN.clone()
    token_of[0, 0, 1] = token_of[1, 0, 0] = 0
    token_of[1, 1] = 7
    drawn = kept_overlay(FRAMES, token_of, (2, 4, 4), 3)
    first, last = inside(drawn, 0, 0, 0), inside(drawn, 3, 1, 1)
    assert first == inside(drawn, 0, 0, 1) == inside(drawn, 2, 0, 0)
    assert last == inside(drawn, 2, 1, 0)
    assert first != last
    assert [100, 100, 100] not in (first, last)
    assert inside(drawn, 0, 1, 0) == [100, 100, 100]
    assert (drawn[0, 1:11] == drawn[0, 1:11, :1]).all()  # the first row of cells is one region


def test_cells_that_reach_beyond_the_clip():
    drawn = kept_overlay(FRAMES[:3, :7, :5], OWN, (2, 4, 4), 2)
    assert drawn.shape == (3, 14, 10, 3)
    with pytest.raises(ValueError, match=r"cover all of \(4, 8, 8\) .* up to \(4, 8, 6\)"):
        kept_overlay(FRAMES, OWN, (2, 4, 3))
