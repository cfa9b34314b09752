"""What a token reduction kept of one clip after each of its places, beside how much the model's loss depends on it.

Rows, under one another in the picture and from left to right in the video: the frames; the map of GradNorm over them;
the frames after each place, with dropped cells in dark blue (`sightline.explain.drawing.kept`), and before them what
the reduction found each cell worth, where it says so. Of more places than `MOST_PLACES` some are left out, never the
last.

Shapes: T frames of H x W pixels, (t, h, w) cells of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from sightline.explain.drawing.kept import kept_overlay
from sightline.explain.drawing.overlay import overlay
from sightline.report.figures.attention import COLUMNS, Frames, bare, color_bar, frame_name, heading, shared_scale
from sightline.report.figures.contact_sheet import strip
from sightline.report.figures.style import LABEL_SIZE, MUTED, TICK_SIZE, new_figure, styled
from sightline.report.numbers import fixed

MOST_PLACES = 5
_WIDTH = 12.0  # inches
_LETTERS, _LINE = 10, 0.25  # of a title: how many fit into an inch, and the height of a line in inches
_SIDE = 224  # pixels, at least, of a frame: lines between cells are one pixel wide
_DROPPED, _MERGED = "Dark blue: dropped.", " One colour: merged into one token."


@dataclass(frozen=True)
class KeptPlace:
    """What goes on from one place.

    Attributes:
        name: The place, e.g. ``after layer 4``.
        token_of: Cell of the token that each cell's patch is part of, int64 (t, h, w); negative where it was dropped.
        cell: Frames, rows and columns of the clip that a cell covers.
        tokens: Number of tokens.
        cells_share: Share of the cells that are part of a token, in [0, 1].
        mass: Share of GradNorm in these, in [0, 1]; NaN where there is none at all.
        heat: What the reduction found every place of the clip worth, in [0, 1], (T, H, W); None where it does not say.
    """

    name: str
    token_of: Tensor
    cell: tuple[int, int, int]
    tokens: int
    cells_share: float
    mass: float
    heat: Tensor | None = None

    @property
    def title(self) -> str:
        """What is said above its row."""
        t, h, w = self.token_of.shape
        return (
            f"{self.name}: {self.tokens} tokens of {t} x {h} x {w} cells; {self.cells_share:.0%} of the cells hold "
            f"{fixed(100 * self.mass, 0)}% of GradNorm"
        )


@dataclass(frozen=True)
class KeptTokens:
    """Everything that is drawn of a clip and a token reduction.

    Attributes:
        frames: uint8 (T, H, W, 3), as they are shown.
        grad_norm: The map of GradNorm, (T, H, W).
        places: In the order of the run, at least one.
    """

    frames: Frames
    grad_norm: Tensor
    places: Sequence[KeptPlace]

    @property
    def shown(self) -> list[KeptPlace]:
        """The places that are drawn."""
        count, most = len(self.places), min(len(self.places), MOST_PLACES)
        return [self.places[(number + 1) * count // most - 1] for number in range(most)]

    @styled()
    def figure(self, title: str, note: str) -> Figure:
        """Draw the picture.

        Args:
            title: Its heading.
            note: Small print under it.
        """
        columns = self._columns()
        rows = {"frames": self.frames, "GradNorm: how much the loss depends on a place": self._mapped()}
        for place in self.shown:
            if place.heat is not None:
                rows[f"{place.name}: what each cell was found worth, from 0 (dark) to 1"] = self._heated(place.heat)
            rows[place.title] = self._drawn(place)
        height, width = self.frames.shape[1:3]
        # Few frames must not fill the page.
        page = _WIDTH * max(0.6, len(columns) / COLUMNS)
        row = (page - 1.2) / len(columns) * height / width + 0.3
        lines = wrap(title, int(page * _LETTERS), break_on_hyphens=False)
        figure = new_figure(page, row * len(rows) + 0.8 + _LINE * (len(lines) - 1))
        heading(figure, "\n".join(lines), f"{note}\n{_DROPPED}{_MERGED if self._merges() else ''}")
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for on, (name, picture) in zip(axes, rows.items(), strict=True):
            bare(on)
            on.imshow(strip(picture[columns]), interpolation="nearest" if len(picture[0]) < _SIDE else "antialiased")
            on.set_title(name, loc="left", fontsize=LABEL_SIZE, parse_math=False)
        color_bar(figure, [axes[1]], shared_scale([self.grad_norm]), "GradNorm")
        for on in axes:
            on.set_anchor("W")  # so that all rows are in line; the bar has moved its own
        step = strip(self._drawn(self.shown[-1])[columns]).shape[1] / len(columns)
        axes[-1].set_xticks(
            [step * (place + 0.5) for place in range(len(columns))],
            [frame_name(frame, len(self.frames)) for frame in columns],
            fontsize=TICK_SIZE,
            color=MUTED,
        )
        axes[-1].tick_params(length=0)
        return figure

    def video(self) -> Frames:
        """Return the rows of the picture side by side, all frames, (T, height, width, 3)."""
        times = self._times()
        pictures = [self.frames, self._mapped()]
        pictures += [self._heated(place.heat) for place in self.shown if place.heat is not None]
        pictures = [picture.repeat(times, axis=1).repeat(times, axis=2) for picture in pictures]
        pictures += [self._drawn(place) for place in self.shown]
        return np.stack([strip(np.stack(same)) for same in zip(*pictures, strict=True)])

    def _columns(self) -> list[int]:
        """Return the frames that the picture shows: the first of every cell, or some of these, evenly spaced."""
        length = len(self.frames)
        firsts = range(0, length, min(place.cell[0] for place in self.places))
        count = min(COLUMNS, len(firsts))
        return [firsts[(2 * number + 1) * len(firsts) // (2 * count)] for number in range(count)]

    def _mapped(self) -> Frames:
        scale = shared_scale([self.grad_norm])
        return overlay(self.frames, self.grad_norm, (scale.low, scale.high))

    def _heated(self, heat: Tensor) -> Frames:
        return overlay(self.frames, heat, (0.0, 1.0))

    def _drawn(self, place: KeptPlace) -> Frames:
        return kept_overlay(self.frames, place.token_of, place.cell, self._times())

    def _times(self) -> int:
        return -(-_SIDE // self.frames.shape[1])

    def _merges(self) -> bool:
        return any(place.tokens < round(place.cells_share * place.token_of.numel()) for place in self.places)
