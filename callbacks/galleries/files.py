"""The files of a run's ``attention/``: pictures, videos, and the captions of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sightline.explain import write_mp4
from sightline.report.figures.attention import Frames, Panel, side_by_side, strip_figure
from sightline.report.figures.style import styled
from sightline.run.atomic import replacing, write_json
from sightline.run.paths import RunFolder
from sightline.run.unfinished import final_name

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


def write_strip(stem: Path, kind: str, frames: Frames, panels: Sequence[Panel], title: str, note: str) -> list[str]:
    """Write maps over consecutive frames as picture and video, ``<stem>_<kind>.png`` and ``.mp4``.

    Args:
        stem: Folder and beginning of the files' names.
        kind: Their end.
        frames: uint8 (T, H, W, 3).
        panels: The maps.
        title: Heading of the picture.
        note: Small print under it.

    Returns:
        The names of the files.
    """
    picture, video = (stem.with_name(f"{stem.name}_{kind}.{ending}") for ending in ("png", "mp4"))
    write_picture(strip_figure(frames, panels, title, note), picture)
    write_video(side_by_side(frames, panels), video)
    return [picture.name, video.name]


def update_captions(run: RunFolder, captions: Mapping[str, str], endings: tuple[str, ...]) -> None:
    """Add the captions of new files to those that are there, and delete all other files of the same endings.

    That goes by the names of the files, because the captions know nothing of what an interrupted gallery drew.

    Args:
        run: The run whose ``attention/`` it is.
        captions: By file name.
        endings: Endings of the files of which only these may remain.
    """
    earlier = json.loads(run.captions.read_text()) if run.captions.exists() else {}
    kept = {file: text for file, text in earlier.items() if not file.endswith(endings)}
    for path in run.attention.iterdir():
        if final_name(path.name).endswith(endings) and path.name not in captions:
            path.unlink()
    write_json(run.captions, {**captions, **kept})
