"""Which places and frames a picture of kept tokens shows, and what stands in it."""

import math
from dataclasses import replace

import numpy as np
import torch

from sightline.report.figures.kept_tokens import MOST_PLACES, KeptPlace, KeptTokens

CELLS = torch.arange(32).view(2, 4, 4)
PLACE = KeptPlace("after layer 0", CELLS, (2, 4, 4), 32, 1.0, 1.0)
FRAMES = np.full((4, 16, 16, 3), 90, dtype=np.uint8)


def view(*places: KeptPlace) -> KeptTokens:
    return KeptTokens(FRAMES, torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0)), places)


def texts(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes[: len(figure.axes) - 1]]


def test_a_row_for_every_place():
    dropped = replace(
        PLACE, name="after layer 4", token_of=CELLS.masked_fill(CELLS > 7, -1), tokens=8, cells_share=0.25
    )
    figure = view(PLACE, replace(dropped, mass=0.4)).figure("random", "clip")
    assert texts(figure)[2:] == [
        "after layer 0: 32 tokens of 2 x 4 x 4 cells; 100% of the cells hold 100% of GradNorm",
        "after layer 4: 8 tokens of 2 x 4 x 4 cells; 25% of the cells hold 40% of GradNorm",
    ]
    # One frame of each of the two cells in time.
    assert [label.get_text() for label in figure.axes[3].get_xticklabels()] == ["frame 1 of 4", "frame 3 of 4"]
    assert figure._supxlabel.get_text() == "clip\nDark blue: dropped."
    assert "hold –% of GradNorm" in replace(PLACE, mass=math.nan).title


def test_a_long_title_stays_inside_a_narrow_picture():
    told = "temporal_difference_kept0.437: eating-drinking, predicted texting-on-phone (99%), with all tokens drowsy"
    figure = view(PLACE).figure(told, "clip")
    figure.canvas.draw()
    drawn = figure._suptitle.get_window_extent()
    assert drawn.x1 < figure.bbox.width
    assert figure._suptitle.get_text().replace("\n", " ") == told
    assert view(PLACE).figure("random", "clip").get_figheight() < figure.get_figheight()


def test_what_cells_were_found_worth_stands_before_what_was_kept():
    heat = torch.zeros(4, 16, 16)
    heat[:, :, :8] = 1
    hot = view(replace(PLACE, heat=heat), replace(PLACE, name="after layer 4"))
    assert [title.split(":")[0] for title in texts(hot.figure("ia_red2", "clip"))[2:]] == [
        "after layer 0", "after layer 0", "after layer 4"
    ]  # fmt: skip
    # Five rows side by side; the third is bright where the heat is, whatever the highest of it.
    video = hot.video()
    third = np.array_split(video, 5, axis=2)[2]
    assert (
        third[..., 1].mean(axis=(0, 1))[: third.shape[2] // 3].mean() > 2 * third[..., 1].mean(axis=(0, 1))[-60:].mean()
    )


def test_merging_is_explained():
    merged = replace(PLACE, token_of=torch.zeros_like(CELLS), tokens=1)
    assert "One colour: merged" in view(merged).figure("tome", "clip")._supxlabel.get_text()


def test_of_many_places_some_are_shown_and_the_last_always():
    names = [f"inside layer {layer}" for layer in range(12)]
    shown = [place.name for place in view(*(replace(PLACE, name=name) for name in names)).shown]
    assert len(shown) == MOST_PLACES
    assert shown[-1] == names[-1]
    assert shown == sorted(set(shown), key=names.index)
    assert [place.name for place in view(PLACE).shown] == ["after layer 0"]


def test_of_many_frames_some_are_shown():
    long = KeptTokens(np.zeros((32, 8, 8, 3), dtype=np.uint8), torch.rand(32, 8, 8), [
        KeptPlace("after layer 0", torch.arange(16).view(16, 1, 1), (2, 8, 8), 16, 1.0, 1.0)
    ])  # fmt: skip
    assert long._columns() == [2, 6, 10, 14, 18, 22, 26, 30]


def test_the_video_shows_the_rows_side_by_side():
    dropped = replace(PLACE, token_of=CELLS.masked_fill(CELLS >= 16, -1), tokens=16, cells_share=0.5)
    video = view(PLACE, dropped).video()
    assert video.shape[:2] == (4, 224)
    side = 224 + 7  # and a gap of 3 %
    assert video.shape[2] == 4 * side - 7
    assert (video[:, 5, 5] == 90).all()
    middle = video[:, 5, 3 * side + 5].tolist()
    assert middle[:2] == [[90, 90, 90]] * 2
    assert middle[2] == middle[3] != [90, 90, 90]
