"""What a list of clips says without any being opened: is it consistent, what is in it, has it changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from datamodules.dataset import SPLITS
from sightline.video.clips import Clip


@contextmanager
def open_list(path: Path) -> Iterator[TextIO]:
    """Open a list of clips or classes, for csv too.

    Raises:
        ValueError: While it is read, where it is no UTF-8.
    """
    # utf-8-sig: spreadsheet programs put a byte order mark before the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: expected text in UTF-8, got byte {error.object[error.start]:#x}. Save it as UTF-8; "
                "files whose names are not UTF-8 have to be renamed."
            ) from error


def check_clips(class_names: Sequence[str], clips: Sequence[Clip], source: str, trains: bool = True) -> None:
    """What holds for every data set: names and labels fit together; to train, every class has training clips."""
    seen: set[str] = set()
    for clip in clips:
        if clip.sample_id in seen:
            raise ValueError(f"{source}: expected every clip once, but {clip.sample_id!r} is listed twice.")
        seen.add(clip.sample_id)
        assert clip.split in SPLITS, clip
        assert 0 <= clip.label < len(class_names), clip
    trained = {clip.label for clip in clips if clip.split == "train"}
    empty = [name for label, name in enumerate(class_names) if label not in trained]
    if empty and trains:
        raise ValueError(
            f"{source}: expected training clips for each of the {len(class_names)} classes, found none for "
            f"{', '.join(empty[:10])}{', ...' if len(empty) > 10 else ''}. "
            "Add clips of these classes to the train split or take the classes out of the class list."
        )


def clip_table(clips: Iterable[Clip], class_names: Sequence[str]) -> pd.DataFrame:
    """One row per clip: sample_id, path, label (its name), group, split and, where any clip has one, segment."""
    rows = [
        (clip.sample_id, clip.path, class_names[clip.label], clip.group, clip.split, clip.segment) for clip in clips
    ]
    table = pd.DataFrame(rows, columns=["sample_id", "path", "label", "group", "split", "segment"])
    return table if (table["segment"] != "").any() else table.drop(columns="segment")


def clips_digest(clips: Iterable[Clip], class_names: Sequence[str], settings: Mapping[str, Any]) -> str:
    """A digest of clips and of how they are read; the folder that the files lie in does not enter it."""
    rows = [
        # Frames only where they bound a clip: the digests of other data stay what they were.
        (clip.sample_id, clip.label, clip.group, Path(clip.path).name, clip.start, clip.end) + (clip.frame_range or ())
        for clip in clips
    ]
    content = {"settings": settings, "class_names": class_names, "clips": rows}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
