"""Marked places of hand-made maps lie where the pictures show them."""

import numpy as np
import pytest
import torch

from sightline.report.figures.attention import (
    HeadGrid,
    Panel,
    Row,
    consecutive,
    peak_frame,
    shared_scale,
    side_by_side,
    strip_figure,
)

FRAMES = np.full((4, 20, 30, 3), 100, dtype=np.uint8)


def marked(frame: int, row: int, column: int, frames: int = 4) -> torch.Tensor:
    """A map that is bright in one place of one frame, and faint elsewhere."""
    pixels = torch.full((frames, 20, 30), 0.001)
    pixels[frame, row : row + 5, column : column + 5] = 1.0
    return pixels


def yellow(picture: np.ndarray) -> np.ndarray:
    """Where a picture is closest to viridis' last colour over grey: red high, blue low."""
    colours = picture.astype(int)
    return (colours[..., 0] > colours[..., 2] + 60) & (colours[..., 1] > 120)


def test_the_frame_shown_has_the_largest_sum():
    pixels = torch.zeros(4, 2, 2)
    pixels[1, 0, 0] = 3.0
    pixels[2] = 1.0  # 4 in sum, though no pixel is as high
    assert peak_frame(pixels) == 2
    assert peak_frame(torch.ones(4, 2, 2)) == 0


@pytest.mark.parametrize(
    ("peak", "frames", "expected"),
    [(0, 16, range(8)), (8, 16, range(4, 12)), (15, 16, range(8, 16)), (3, 5, range(5)), (1, 8, range(8))],
)
def test_consecutive_frames_are_around_the_peak(peak, frames, expected):
    assert consecutive(peak, frames) == expected


def test_a_scale_ends_where_few_values_are_higher():
    values = torch.cat([torch.linspace(0, 1, 1001), torch.full((1,), 2.0)])
    scale = shared_scale([values[:500], values[500:]])
    assert scale.low == 0
    assert scale.high == pytest.approx(0.996, abs=0.002)
    assert scale.cut
    single = torch.zeros(10_000)
    single[7] = 8.0
    assert shared_scale([single]) == (0.0, 2.0, True)
    assert shared_scale([torch.full((100,), 0.5)]) == (0.0, 0.5, False)


def test_a_grid_shows_every_head_at_its_own_frame_with_the_mark_in_place():
    rows = [
        Row("most", (Panel("first", marked(1, 10, 20)), Panel("second", marked(3, 0, 5))), "weight"),
        Row("least", (Panel("third", marked(0, 5, 0)), None), "weight"),
    ]
    grid = HeadGrid(FRAMES, rows, ["early", "deep"], "a $title$", "note")
    axes = [axes for axes in grid.figure.axes if axes.images]
    assert [a.get_title() for a in axes] == ["early\nfirst", "deep\nsecond", "third"]
    assert [a.get_xlabel() for a in axes] == ["frame 2 of 4", "frame 4 of 4", "frame 1 of 4"]
    for own, (row, column) in zip(axes, [(10, 20), (0, 5), (5, 0)], strict=True):
        where = yellow(own.images[0].get_array())
        right = where.shape[1] - 30  # where the picture under the map begins, behind the frame and a gap
        expected = np.zeros_like(where)
        expected[row : row + 5, right + column : right + column + 5] = True
        assert np.array_equal(where, expected)


def test_a_grid_plays_frame_by_frame_and_then_shows_its_stills_again():
    grid = HeadGrid(FRAMES, [Row("most", (Panel("one", marked(2, 10, 20)),), "weight")], ["early"], "title")
    played = list(grid.play())
    assert len(played) == 4
    [axes] = [axes for axes in grid.figure.axes if axes.images]
    assert axes.get_xlabel() == "frame 3 of 4"
    assert yellow(axes.images[0].get_array()).any()
    # The colour bar, which has the same yellow, is in every frame; the mark only in the third.
    extra = yellow(played[2]) & ~yellow(played[0])
    rows, columns = extra.nonzero()
    assert extra.sum() > 100
    assert not (yellow(played[1]) & ~yellow(played[0])).any()
    # The plain frame is left of the one under the map. Letters have pixels as grey, but never many in a line.
    grey = (np.abs(played[0].astype(int) - 100) <= 1).all(axis=-1)
    lines, across = ((grey.sum(axis=axis) > 50).nonzero()[0] for axis in (1, 0))
    assert rows.mean() == pytest.approx(lines[0] + len(lines) * 12.5 / 20, abs=2)
    assert np.ptp(columns) + 1 == pytest.approx(len(across) * 5 / 30, abs=2)
    assert columns.mean() == pytest.approx(across[0] + len(across) * (31 + 22.5) / 30, abs=2)


def test_rows_of_one_meaning_share_their_colours_and_others_do_not():
    faint, strong = torch.full((4, 20, 30), 1.0), torch.full((4, 20, 30), 2.0)
    rows = [Row("a", (Panel("", strong),), "x"), Row("b", (Panel("", faint),), "x"), Row("c", (Panel("", faint),), "y")]
    grid = HeadGrid(FRAMES, rows, ["early"], "title")
    first, second, third = (axes.images[0].get_array()[0, -1] for axes in grid.figure.axes if axes.images)
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)
    bars = [axes.get_ylim() for axes in grid.figure.axes if axes.get_label() == "<colorbar>"]
    assert bars == [(0, 2), (0, 1)]


def test_every_row_has_a_panel_per_column():
    with pytest.raises(ValueError, match=r"needs 2 panels, one per column, got \[1\]"):
        HeadGrid(FRAMES, [Row("a", (None,), "x")], ["early", "deep"], "title")


def test_a_strip_shows_consecutive_frames_of_every_map():
    frames = np.repeat(FRAMES, 3, axis=0)  # 12, of which 8 are shown: 2 to 9, around the peak of the first map
    panels = [Panel("first", marked(6, 10, 20, 12)), Panel("second", marked(9, 0, 0, 12))]
    figure = strip_figure(frames, panels, "title", "note")
    rows = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    assert [axes.get_title(loc="left") for axes in rows] == ["frames", "first", "second"]
    assert [tick.get_text() for tick in rows[-1].get_xticklabels()] == [f"frame {k} of 12" for k in range(3, 11)]
    step = 30 + 1  # a frame and the gap
    for axes, (place, row, column) in zip(rows[1:], [(4, 10, 20), (7, 0, 0)], strict=True):
        where = yellow(axes.images[0].get_array())
        expected = np.zeros_like(where)
        expected[row : row + 5, step * place + column : step * place + column + 5] = True
        assert np.array_equal(where, expected)


def test_side_by_side_is_enlarged_and_keeps_the_order():
    video = side_by_side(FRAMES, [Panel("a", marked(1, 10, 20)), Panel("b", marked(2, 0, 0))])
    assert video.shape == (4, 20 * 12, (3 * 30 + 2) * 12, 3)
    assert (video[:, 0, 0] == 100).all()
    for frame, (row, column) in {1: (10, 31 + 20), 2: (0, 62)}.items():
        where = yellow(video[frame])
        rows, columns = where.nonzero()
        assert (rows.min(), columns.min()) == (row * 12, column * 12)
        assert where.sum() == (5 * 12) ** 2
    assert not yellow(video[0]).any()
