"""Attention of single heads over frames: several heads side by side, and one head over consecutive frames.

Still pictures show, of a grid of heads, each head's own frame: the one with the largest sum of its map
(`peak_frame`); of a strip, the consecutive frames around the peak frame of its first map (`consecutive`). Maps whose
values mean the same share one colour scale, which a colour bar shows: see `shared_scale`.

Shapes: T frames of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from sightline.explain import color_range, overlay
from sightline.explain.drawing.overlay import COLOR_MAP
from sightline.report.figures.contact_sheet import strip
from sightline.report.figures.style import INK, LABEL_SIZE, MUTED, NOTE_SIZE, TICK_SIZE, TITLE_SIZE, new_figure, styled

COLUMNS = 8
"""The most frames that a strip shows."""
_WIDTH = 12.0  # inches
_VIDEO_DPI = 90
_SHARE = 0.995
_SIDE = 224  # pixels, at least, of a picture in a video of pictures alone

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Panel:
    """A map to draw.

    Attributes:
        title: What it is of.
        pixels: (T, H, W).
    """

    title: str
    pixels: Tensor


@dataclass(frozen=True)
class Row:
    """Panels side by side.

    Attributes:
        title: What they have in common.
        panels: None where there is nothing to show.
        scale: What the colours mean. Rows in which it is the same share a colour scale.
    """

    title: str
    panels: tuple[Panel | None, ...]
    scale: str


def peak_frame(pixels: Tensor) -> int:
    """Return the frame in which a map (T, H, W) has its largest sum; the first of equals."""
    return int(pixels.sum(dim=(1, 2)).argmax())


def consecutive(peak: int, frames: int, shown: int = COLUMNS) -> range:
    """Return at most ``shown`` consecutive frames out of ``frames``, the peak as far in their middle as possible."""
    start = min(max(0, peak - shown // 2), max(0, frames - shown))
    return range(start, min(frames, start + shown))


class Scale(NamedTuple):
    """A colour scale.

    Attributes:
        low: Value of the darkest colour.
        high: Value of the brightest.
        cut: Whether there are higher values, which are as bright.
    """

    low: float
    high: float
    cut: bool


def shared_scale(maps: Sequence[Tensor]) -> Scale:
    """Return the colour scale of maps that are shown together: from 0 to what 99.5 % of their pixels do not exceed.

    A single high cell of one head would make all else dark. The end is no less than a quarter of the highest value, so
    that a map with few bright places keeps them.
    """
    low, high = color_range(maps)
    most = float(np.quantile(np.concatenate([values.numpy().ravel() for values in maps]), _SHARE))
    end = max(most, high / 4)
    return Scale(low, end, end < high)


class HeadGrid:
    """Heads side by side, each as a frame and the same frame under the head's map; as a figure, or playing.

    Attributes:
        figure: Shows every head at its own peak frame.
    """

    @styled()
    def __init__(self, frames: Frames, rows: Sequence[Row], columns: Sequence[str], title: str, note: str = "") -> None:
        """Draw the figure.

        Args:
            frames: uint8 (T, H, W, 3).
            rows: Each with as many panels as there are columns.
            columns: Their headings.
            title: Heading of the figure.
            note: Small print under it.

        Raises:
            ValueError: If a row has another number of panels.
        """
        if any(len(row.panels) != len(columns) for row in rows):
            raise ValueError(
                f"Every row needs {len(columns)} panels, one per column, got {[len(r.panels) for r in rows]}."
            )
        self._length = len(frames)
        self._drawn: list[tuple[AxesImage, Axes, Frames, int]] = []
        height, width = frames.shape[1:3]
        panel = _WIDTH / len(columns) * 0.93  # the rest is the colour bar's
        self.figure = new_figure(_WIDTH, len(rows) * (panel * height / (2.03 * width) + 0.5) + 0.7)
        heading(self.figure, title, note)
        grid = self.figure.subplots(len(rows), len(columns), squeeze=False)
        for row, line in zip(rows, grid, strict=True):
            scale = shared_scale(_maps(rows, row.scale))
            for place, (shown, axes) in enumerate(zip(row.panels, line, strict=True)):
                bare(axes)
                if place == 0:
                    axes.set_ylabel(row.title, fontsize=LABEL_SIZE, fontweight="bold")
                if shown is not None:
                    self._add(axes, frames, shown, scale)
        for name, axes in zip(columns, grid[0], strict=True):
            own = axes.get_title()
            axes.set_title(f"{name}\n{own}" if own else name, fontsize=LABEL_SIZE, parse_math=False)
        for meaning in dict.fromkeys(row.scale for row in rows):
            beside = [axes for row, line in zip(rows, grid, strict=True) if row.scale == meaning for axes in line]
            color_bar(self.figure, beside, shared_scale(_maps(rows, meaning)), meaning)

    def _add(self, axes: Axes, frames: Frames, panel: Panel, scale: Scale) -> None:
        pairs = np.stack(
            [strip(np.stack(both)) for both in zip(frames, _drawn_over(frames, panel, scale), strict=True)]
        )
        still = peak_frame(panel.pixels)
        image = axes.imshow(pairs[still], interpolation="nearest")
        axes.set_title(panel.title, fontsize=LABEL_SIZE, parse_math=False)
        self._drawn.append((image, axes, pairs, still))
        self._show(still, self._drawn[-1:])

    def _show(self, frame: int | None, drawn: Sequence[tuple[AxesImage, Axes, Frames, int]]) -> None:
        for image, axes, pairs, still in drawn:
            at = still if frame is None else frame
            image.set_data(pairs[at])
            axes.set_xlabel(frame_name(at, self._length), fontsize=TICK_SIZE, color=MUTED, labelpad=2)

    def play(self) -> Iterator[Frames]:
        """Yield the figure (height, width, 3) with all heads at the first frame, at the second, and so on.

        Layout and text are drawn once, and over them what changes; drawing all of it for every frame takes far longer.
        """
        canvas, dpi, engine = self.figure.canvas, self.figure.dpi, self.figure.get_layout_engine()
        assert isinstance(canvas, FigureCanvasAgg)
        changing = [artist for image, axes, *_ in self._drawn for artist in (image, axes.xaxis.label)]
        self.figure.set_dpi(_VIDEO_DPI)
        try:
            with styled():
                canvas.draw()  # lays out, with the labels in place
                self.figure.set_layout_engine("none")
                for artist in changing:
                    artist.set_visible(False)
                canvas.draw()
                empty = canvas.copy_from_bbox(self.figure.bbox)
                for artist in changing:
                    artist.set_visible(True)
                for frame in range(self._length):
                    canvas.restore_region(empty)
                    self._show(frame, self._drawn)
                    for artist in changing:
                        self.figure.draw_artist(artist)
                    yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
        finally:
            for artist in changing:
                artist.set_visible(True)
            self._show(None, self._drawn)
            self.figure.set_layout_engine(engine)
            self.figure.set_dpi(dpi)


@styled()
def strip_figure(frames: Frames, panels: Sequence[Panel], title: str, note: str = "") -> Figure:
    """Draw consecutive frames, and under them each map over the same frames, with a colour scale of its own.

    Args:
        frames: uint8 (T, H, W, 3).
        panels: The maps, at least one; the first decides which frames are shown.
        title: Heading of the figure.
        note: Small print under it.
    """
    shown = consecutive(peak_frame(panels[0].pixels), len(frames))
    part = slice(shown.start, shown.stop)
    height, width = frames.shape[1:3]
    # Few frames must not fill the page.
    page = _WIDTH * max(0.5, len(shown) / COLUMNS)
    row = (page - 1.2) / len(shown) * height / width + 0.3
    figure = new_figure(page, row * (len(panels) + 1) + 0.8)
    heading(figure, title, note)
    rows = figure.subplots(len(panels) + 1, 1, squeeze=False)[:, 0]
    pictures = [frames, *(_drawn_over(frames, panel) for panel in panels)]
    titles = ["frames", *(panel.title for panel in panels)]
    for axes, picture, name in zip(rows, pictures, titles, strict=True):
        bare(axes)
        axes.imshow(strip(picture[part]), interpolation="nearest")
        axes.set_title(name, loc="left", fontsize=LABEL_SIZE, parse_math=False)
    for axes, panel in zip(rows[1:], panels, strict=True):
        color_bar(figure, [axes], shared_scale([panel.pixels]), "weight")
    step = strip(frames[part]).shape[1] / len(shown)
    rows[-1].set_xticks(
        [step * (place + 0.5) for place in range(len(shown))],
        [frame_name(frame, len(frames)) for frame in shown],
        fontsize=TICK_SIZE,
        color=MUTED,
    )
    rows[-1].tick_params(length=0)
    return figure


def side_by_side(frames: Frames, panels: Sequence[Panel]) -> Frames:
    """Return the frames, and the frames under each map, beside one another: (T, height, width, 3).

    Colours are those of `strip_figure`. Small frames are enlarged by a whole number.
    """
    pictures = [frames, *(_drawn_over(frames, panel) for panel in panels)]
    joined = np.stack([strip(np.stack(same)) for same in zip(*pictures, strict=True)])
    times = -(-_SIDE // frames.shape[1])
    return joined.repeat(times, axis=1).repeat(times, axis=2)


def _maps(rows: Sequence[Row], scale: str) -> list[Tensor]:
    return [panel.pixels for row in rows if row.scale == scale for panel in row.panels if panel is not None]


def _drawn_over(frames: Frames, panel: Panel, scale: Scale | None = None) -> Frames:
    """Draw a map over the frames, by default with a scale of its own."""
    scale = scale or shared_scale([panel.pixels])
    return overlay(frames, panel.pixels, (scale.low, scale.high))


def frame_name(frame: int, frames: int) -> str:
    """Name a frame by its number, from 1."""
    return f"frame {frame + 1} of {frames}"


def bare(axes: Axes) -> None:
    """Take from axes all but the picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def heading(figure: Figure, title: str, note: str) -> None:
    """Put a title above a figure and small print under it."""
    # A clip's name may have dollar signs, which would begin a formula.
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK, parse_math=False)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=NOTE_SIZE, color=MUTED, parse_math=False)


def color_bar(figure: Figure, beside: Sequence[Any], scale: Scale, meaning: str) -> None:
    """Draw a colour scale beside axes, and what it means."""
    colours = ScalarMappable(Normalize(scale.low, scale.high), COLOR_MAP)
    bar = figure.colorbar(
        colours,
        ax=list(beside),
        fraction=0.03,
        pad=0.01,
        aspect=25 if len(beside) > 1 else 10,
        extend="max" if scale.cut else "neither",
    )
    bar.set_label(meaning, fontsize=NOTE_SIZE, color=MUTED)
    bar.ax.tick_params(labelsize=NOTE_SIZE, colors=MUTED, length=2, width=0.5)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.locator_params(nbins=4)
