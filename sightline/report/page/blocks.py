"""What a section of the report is made of. The template draws every kind; all text in it is escaped there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import plotly.graph_objects as go

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'


@dataclass(frozen=True)
class Text:
    """A paragraph, a muted one where it is a ``note``."""

    kind: ClassVar[str] = "text"
    text: str
    note: bool = False


@dataclass(frozen=True)
class Missing:
    """What is not there yet, and the command that makes it."""

    kind: ClassVar[str] = "missing"
    text: str
    command: str


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, whether it holds numbers (aligned right), and what it means."""

    title: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of ready text. Rows whose number is in ``strong`` are set in bold."""

    kind: ClassVar[str] = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart:
    """An interactive figure. Where the page has less than ``least_width`` pixels, it scrolls in a box of its own."""

    kind: ClassVar[str] = "chart"
    figure: dict[str, Any]
    title: str
    caption: str
    least_width: int = 0


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: counts, and the share of its row that each is."""

    kind: ClassVar[str] = "matrix"
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    shares: Sequence[Sequence[float]]
    caption: str


@dataclass(frozen=True)
class Medium:
    """A picture or a playable clip: ``source`` is a data URI, or an address relative to the page."""

    source: str
    is_video: bool
    name: str


@dataclass(frozen=True)
class Gallery:
    """Pictures and clips that belong together, with one caption each."""

    kind: ClassVar[str] = "gallery"
    items: Sequence[tuple[str, Sequence[Medium]]]


@dataclass(frozen=True)
class Code:
    """Text in which spaces and lines count, e.g. a configuration."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when their title is clicked."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


Block = Text | Missing | Table | Chart | Matrix | Gallery | Code | Folded | Heading


@dataclass
class Section:
    """A part of the page: a heading, what it shows in plain words, and blocks."""

    id: str
    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)


def chart(figure: go.Figure, title: str, caption: str, least_width: int = 0, height: int = 340) -> Chart:
    """Make a block of a Plotly figure: no title and ground of its own, so that it fits a page light or dark."""
    figure.update_yaxes(automargin=True, title_standoff=12)
    figure.update_layout(
        title=None,
        template="none",
        font_family=FONT,
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 58, "r": 12, "t": 34, "b": 46},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"},
    )
    return Chart(json.loads(figure.to_json()), title, caption, least_width)
