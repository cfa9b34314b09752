"""What is wrong with the clips of a data set: judged from their annotations and from what their files hold.

`examine` reads one clip, in whichever process; `findings` judges all of them together.
"""

from __future__ import annotations

import hashlib
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from datamodules.dataset import SPLITS
from sightline.video.clips import Clip
from sightline.video.decoding import DamagedClip, UnreadableClip, read_frames
from sightline.video.video_file import require_regular_file

KINDS = ("unreadable", "damaged", "too_short", "mislabelled", "alike_classes", "duplicated", "leaking")


@dataclass(frozen=True)
class Contents:
    """What a clip's file holds.

    Attributes:
        frames: Number of frames of the clip.
        start: Second of the file at which the first of them begins.
        end: Second at which the last of them ends.
        digest: Of the file's bytes; empty where it was not asked for, or the file cannot be read.
        reason: Why the clip cannot be read; empty if it can.
        damage: What is damaged in it, though frames come out; empty if nothing is.
    """

    frames: int = 0
    start: float = 0.0
    end: float = 0.0
    digest: str = ""
    reason: str = ""
    damage: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a clip: a row of the report.

    Attributes:
        kind: One of `KINDS`.
        clip: The clip.
        reason: What is wrong, in one line.
        other: The clip that it repeats, or whose class is the other one, if there is one.
    """

    kind: str
    clip: Clip
    reason: str
    other: Clip | None = None


def examine(task: tuple[Clip, bool]) -> Contents:
    """Decode every frame of a clip and, if asked for, take the digest of its file."""
    clip, wants_digest = task
    shown: list[tuple[int, float, float]] = []

    def some_of_all(times: np.ndarray, end: float) -> list[int]:
        shown.append((len(times), float(times[0]), end))
        # All up to the last are decoded; converting three of them shows whether their sizes agree.
        return [0, len(times) // 2, len(times) - 1]

    digest = damage = ""
    try:
        require_regular_file(clip.path)
        if wants_digest:
            with open(clip.path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        read_frames(clip.path, some_of_all, clip.start, clip.end, frame_range=clip.frame_range, every_frame=True)
    except DamagedClip as error:
        damage = _one_line(error.reason)
    except UnreadableClip as error:
        return Contents(digest=digest, reason=_one_line(error.reason))
    except OSError as error:
        return Contents(reason=_one_line(f"the file cannot be read: {error.strerror or error}"))
    return Contents(*shown[-1], digest=digest, damage=damage)


def findings(
    clips: Sequence[Clip],
    contents: Mapping[str, Contents],
    class_names: Sequence[str],
    stated_classes: Callable[[Clip], Mapping[str, str]],
    min_frames: int,
) -> list[Finding]:
    """Everything that is wrong, by kind, and within a kind in the order of the clips.

    Args:
        clips: The clips of all splits.
        contents: What each clip's file holds, by sample_id.
        class_names: Names of the classes in the order of the labels.
        stated_classes: Which classes the layout of the files gives a clip (`ClipDataModule.stated_classes`).
        min_frames: How many frames a clip needs.
    """
    readable = [clip for clip in clips if not contents[clip.sample_id].reason]
    digests = {clip.path: digest for clip in clips if (digest := contents[clip.sample_id].digest)}
    by_content: dict[str, list[Clip]] = defaultdict(list)
    for clip in readable:
        # A file of unknown digest is at least the same as itself.
        by_content[digests.get(clip.path, clip.path)].append(clip)
    found = [Finding("unreadable", clip, why) for clip in clips if (why := contents[clip.sample_id].reason)]
    found += [Finding("damaged", clip, what) for clip in readable if (what := contents[clip.sample_id].damage)]
    found += _too_short(readable, contents, min_frames)
    found += _mislabelled(clips, class_names, stated_classes)
    found += _alike_classes(clips, class_names)
    for same in by_content.values():
        found += _duplicated(same, contents, class_names)
        found += _leaking(same, contents)
    found += _leaking_groups(clips)
    place = {clip.sample_id: number for number, clip in enumerate(clips)}
    return sorted(found, key=lambda finding: (KINDS.index(finding.kind), place[finding.clip.sample_id]))


def _too_short(clips: Iterable[Clip], contents: Mapping[str, Contents], min_frames: int) -> Iterator[Finding]:
    for clip in clips:
        frames = contents[clip.sample_id].frames
        if frames < min_frames:
            yield Finding("too_short", clip, f"expected at least {min_frames} frames, found {frames}")


def _mislabelled(
    clips: Iterable[Clip], class_names: Sequence[str], stated_classes: Callable[[Clip], Mapping[str, str]]
) -> Iterator[Finding]:
    for clip in clips:
        label = class_names[clip.label]
        others = [
            f"{place} says {name}" for place, name in stated_classes(clip).items() if name.lower() != label.lower()
        ]
        if others:
            yield Finding("mislabelled", clip, f"labelled {label}, but its {' and its '.join(others)}")


def _alike_classes(clips: Iterable[Clip], class_names: Sequence[str]) -> Iterator[Finding]:
    """Classes whose names differ in nothing but case and white space, as one class does that was written in two ways.

    Each is told once, at its first clip.
    """
    first: dict[int, Clip] = {}
    for clip in clips:
        first.setdefault(clip.label, clip)
    seen: dict[str, int] = {}
    for label in sorted(first):
        earlier = seen.setdefault(_bare(class_names[label]), label)
        if earlier != label:
            names = f"{class_names[label]!r} and {class_names[earlier]!r}"
            reason = f"its class and another differ only in case or white space: {names}"
            yield Finding("alike_classes", first[label], reason, first[earlier])


def _bare(name: str) -> str:
    """A class's name without what is easily typed in another way."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _duplicated(
    same: Sequence[Clip], contents: Mapping[str, Contents], class_names: Sequence[str]
) -> Iterator[Finding]:
    """Clips of one content that are the same part of it, in one split."""
    first: dict[tuple[str, float, float], Clip] = {}
    for clip in same:
        part = contents[clip.sample_id]
        other = first.setdefault((clip.split, part.start, part.end), clip)
        if other is not clip:
            labels = [class_names[which.label] for which in (clip, other)]
            under = "" if labels[0] == labels[1] else f", labelled {labels[0]} here and {labels[1]} there"
            yield Finding("duplicated", clip, f"same content as {other.sample_id}{under}", other)


def _leaking(same: Sequence[Clip], contents: Mapping[str, Contents]) -> Iterator[Finding]:
    """Clips of one content that overlap with one in an earlier split."""
    parts = {
        split: _Parts([(contents[clip.sample_id], clip) for clip in same if clip.split == split]) for split in SPLITS
    }
    for clip in same:
        part = contents[clip.sample_id]
        for split in SPLITS[: SPLITS.index(clip.split)]:
            other = parts[split].overlapping(part.start, part.end)
            if other is not None:
                its = contents[other.sample_id]
                what = "same content as" if (its.start, its.end) == (part.start, part.end) else "overlaps with"
                yield Finding("leaking", clip, f"{what} {other.sample_id} of the {split} split", other)
                break


class _Parts:
    """Parts of one file, to be asked which of them overlaps with another part."""

    def __init__(self, parts: Iterable[tuple[Contents, Clip]]) -> None:
        ordered = sorted(parts, key=lambda pair: pair[0].start)
        self._starts = [part.start for part, _ in ordered]
        # Of the first n parts the one that ends last: if it does not reach into another part, none of the n does.
        self._latest = list(accumulate(ordered, _later))

    def overlapping(self, start: float, end: float) -> Clip | None:
        begun = bisect_left(self._starts, end)
        if not begun or self._latest[begun - 1][0].end <= start:
            return None
        return self._latest[begun - 1][1]


def _later(one: tuple[Contents, Clip], other: tuple[Contents, Clip]) -> tuple[Contents, Clip]:
    return other if other[0].end > one[0].end else one


def _leaking_groups(clips: Sequence[Clip]) -> Iterator[Finding]:
    """Groups in several splits, where the data set's reader has not refused them."""
    first: dict[tuple[str, str], Clip] = {}
    for clip in clips:
        first.setdefault((clip.group, clip.split), clip)
    for (group, split), clip in first.items():
        for earlier in SPLITS[: SPLITS.index(split)]:
            other = first.get((group, earlier))
            if other is not None:
                yield Finding("leaking", clip, f"its group {group} is in the {earlier} split too", other)
                break


def _one_line(text: str) -> str:
    return " ".join(text.split())
