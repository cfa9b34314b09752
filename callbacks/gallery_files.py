"""The files of a run's ``attention/``: pictures, videos, and the captions of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sightline.explain import write_mp4
from sightline.relevance.table import write_json
from sightline.report.files import replacing
from sightline.report.style import styled

INDEX = "index.json"
_PER_SECOND = 4.0  # frames of a video: the few that the model sees, slowly enough to follow
_DPI = 130


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with styled(), replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})


def write_video(frames: NDArray[np.uint8], path: Path) -> None:
    """Write frames (T, H, W, 3) as MP4, whole or not at all."""
    with replacing(path) as temporary:
        write_mp4(temporary, frames, _PER_SECOND)


def update_index(folder: Path, captions: Mapping[str, str], endings: tuple[str, ...]) -> None:
    """Put the captions of new files into the index, and delete older files of the same endings that it has besides.

    Args:
        folder: Where the files and their index lie.
        captions: By file name.
        endings: Those of the files of which these are all that there shall be.
    """
    index = folder / INDEX
    earlier = json.loads(index.read_text()) if index.exists() else {}
    kept = {file: text for file, text in earlier.items() if not file.endswith(endings)}
    for file in set(earlier) - set(kept) - set(captions):
        if file == Path(file).name:
            (folder / file).unlink(missing_ok=True)
    write_json(index, {**captions, **kept})
