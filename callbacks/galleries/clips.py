"""Which clips a gallery shows, and what their files are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datamodules.clip_data_module import ClipDataModule
from datamodules.dataset import SPLITS

_LONGEST = 120  # of a file's name, which may have 255 bytes, and gets an ending


def check_counts(per_class: int, most: int | None) -> None:
    """Raise ValueError unless a gallery with these limits shows anything."""
    if per_class < 1 or (most is not None and most < 1):
        raise ValueError(f"Expected clips_per_class and max_clips of at least 1, got {per_class} and {most}.")


def chosen_clips(
    data: ClipDataModule,
    split: str,
    per_class: int,
    names: Sequence[str] | None,
    most: int | None,
    classes: Sequence[str] | None = None,
) -> list[int]:
    """Return the places of clips in a split: those named, or as many of every class (or of some), class by class.

    Of a class, and of all where there are more than ``most``, they are spread evenly over the list, in which neighbours
    are often of one person; each class begins at another place, so that not all show the same one.

    Raises:
        ValueError: If a name or a class is not one of the split's, or the split has no clips.
    """
    clips = data.clips(split)
    if not clips:
        raise ValueError(f"The {split} split has no clips to show. Pass --split with another one.")
    if names is not None:
        where = {clip.sample_id: place for place, clip in enumerate(clips)}
        unknown = [name for name in names if name not in where]
        if unknown:
            raise ValueError(_unknown(data, split, unknown[0]))
        chosen = [where[name] for name in dict.fromkeys(names)]
    else:
        by_class: dict[int, list[int]] = {}
        wanted = None if classes is None else _labels(data, classes)
        for place, clip in enumerate(clips):
            if wanted is None or clip.label in wanted:
                by_class.setdefault(clip.label, []).append(place)
        if not by_class:
            raise ValueError(
                f"The {split} split has no clips of {', '.join(classes or ())}. Pass --split with another."
            )
        chosen = [
            own[index]
            for order, (_, own) in enumerate(sorted(by_class.items()))
            for index in evenly(len(own), per_class, (order + 0.5) / len(by_class))
        ]
    return chosen if most is None else [chosen[index] for index in evenly(len(chosen), most)]


def evenly(count: int, wanted: int, phase: float = 0.5) -> list[int]:
    """Return ``wanted`` indices below ``count``, one of each of so many equal parts; all where there are not more.

    ``phase``, from 0 to below 1, says where in its part: 0.5 in the middle.
    """
    if wanted >= count:
        return list(range(count))
    return [int((part + phase) * count / wanted) for part in range(wanted)]


def file_stems(names: Sequence[str]) -> list[str]:
    """Return a file name without ending for every clip: different ones, of plain letters."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9.-]+", "_", re.sub(r"\.(mp4|avi|mkv|mov|webm)$", "", name))
        stem = plain[-_LONGEST:].strip("._") or "clip"  # a leading dot would hide the file
        taken, number = stem, 2
        while taken in found:
            taken, number = f"{stem}-{number}", number + 1
        found.append(taken)
    return found


def _labels(data: ClipDataModule, classes: Sequence[str]) -> set[int]:
    unknown = [name for name in classes if name not in data.class_names]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a class of the data. Its classes: {', '.join(data.class_names)}.")
    return {data.class_names.index(name) for name in classes}


def _unknown(data: ClipDataModule, split: str, name: str) -> str:
    for other in SPLITS:
        if any(clip.sample_id == name for clip in data.clips(other)):
            return f"{name} is not in the {split} split but in {other}: pass --split {other}."
    return f"The data have no clip {name}; write it as in the sample_id of the run's splits.csv."
