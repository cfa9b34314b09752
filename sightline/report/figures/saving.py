"""Write figures so that a reader never sees half of one, and equal figures give equal bytes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from sightline.report.figures.style import DPI, styled
from sightline.run.atomic import replacing


def save_figure(figure: Figure, folder: Path | str, stem: str) -> list[Path]:
    """Write a figure as ``<stem>.png`` and ``<stem>.svg``; equal figures give equal bytes.

    Args:
        figure: A figure of this package, or any other matplotlib figure.
        folder: Where to; made where it is missing.
        stem: File name without folder and suffix.
    """
    if not stem or Path(stem).name != stem:
        raise ValueError(f"A figure's stem is a plain file name without folders, e.g. 'layer_boxplot'; got {stem!r}.")
    paths = [Path(folder) / f"{stem}.{suffix}" for suffix in ("png", "svg")]
    with styled():
        for path in paths:
            with replacing(path) as temporary:
                # matplotlib stamps SVGs with the time, and PNGs with its version, unless told otherwise.
                metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
                figure.savefig(temporary, dpi=DPI, metadata=metadata)
    return paths
