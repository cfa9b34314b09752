"""Where things are in a clip: annotations of any data from a CSV, and from pixels of the video to those of the model.

    sample_id,name,frame,x0,y0,x1,y1
    anna/drinking_01.mp4,hand,12,310,205,372,260
    anna/drinking_01.mp4,action,12,,,,

One row says where one thing is in one frame. ``sample_id`` is the clip's name in the run's ``splits.csv``; ``frame``
counts the frames of the whole video from 0, also where the clip is a part of it; ``x0,y0,x1,y1`` are the left, upper,
right and lower edge in pixels of the video as it is shown (upright), in which the first pixel covers 0 to 1. Several
things may have one name. A row named ``action`` says that the clip's action is under way in that frame, and has no
edges.

What has no row in a frame is taken as not there. So annotate every frame that the model sees: evaluation takes the
middle one of each of T equal parts of the clip.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sightline.types import Box, ClipTruth
from sightline.video.clips import Clip, ClipSettings
from sightline.video.decoding import read_frames
from sightline.video.sampling import segment_frames
from sightline.video.timeline import count_frames, count_packets, part_between_times, remembered
from sightline.video.transforms import crop_corner

ACTION = "action"
COLUMNS = ("sample_id", "name", "frame", "x0", "y0", "x1", "y1")
_LEAST_VISIBLE = 0.25  # of a box's area: of less than a quarter nobody would say that it is in the picture


def read_boxes(path: str | Path) -> dict[str, list[Box]]:
    """Read boxes in pixels and frames of the video, by sample_id; this module says how the CSV looks.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column or a value is missing or wrong; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected boxes in {path}, which does not exist. Columns: {', '.join(COLUMNS)}.")
    found: dict[str, list[Box]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        header = [name.strip() for name in next(reader, [])]
        if sorted(header) != sorted(COLUMNS):
            raise ValueError(f"{path}: expected the columns {','.join(COLUMNS)}, got {','.join(header) or 'none'}.")
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if not values:
                continue
            if len(values) != len(header):
                raise ValueError(f"{where}: expected {len(header)} values, as the header has, got {len(values)}.")
            row = dict(zip(header, (value.strip() for value in values), strict=True))
            found[row["sample_id"]].append(_box(row, where))
    if not found:
        raise ValueError(f"{path}: expected one row per box, got a header only.")
    return dict(found)


def _box(row: dict[str, str], where: str) -> Box:
    if not row["sample_id"] or not row["name"]:
        raise ValueError(f"{where}: expected a sample_id and a name, got {row['sample_id']!r} and {row['name']!r}.")
    if not row["frame"].isdecimal():
        raise ValueError(f"{where}: expected frame as an index from 0, got {row['frame']!r}.")
    edges = [row[name] for name in COLUMNS[3:]]
    if row["name"] == ACTION:
        if any(edges):
            raise ValueError(
                f"{where}: a row named {ACTION} says when, not where: leave {','.join(COLUMNS[3:])} empty."
            )
        return Box(ACTION, int(row["frame"]), 0, 0, 0, 0)
    try:
        x0, y0, x1, y1 = map(float, edges)
    except ValueError:
        raise ValueError(f"{where}: expected {','.join(COLUMNS[3:])} in pixels, got {','.join(edges)}.") from None
    # Written so that NaN fails too.
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):
        raise ValueError(f"{where}: expected x0 < x1 and y0 < y1, got {','.join(edges)}.")
    return Box(row["name"], int(row["frame"]), x0, y0, x1, y1)


def video_truth(clip: Clip, boxes: Iterable[Box], settings: ClipSettings) -> ClipTruth:
    """Take boxes in pixels and frames of a clip's video to what evaluation sees of it.

    Raises:
        UnreadableClip: Where the video has not got the clip's frames.
    """
    taken, height, width = seen_frames(clip, settings)
    return in_input(boxes, taken, height, width, settings)


def seen_frames(clip: Clip, settings: ClipSettings) -> tuple[list[int], int, int]:
    """Return which frames of the video evaluation sees, and the height and width of its frames.

    Raises:
        UnreadableClip: Where the video has not got them.
    """
    part: list[np.ndarray] = []
    taken: list[int] = []
    sizes: list[tuple[int, int]] = []

    def choose(times: np.ndarray, end: float) -> list[int]:
        part[:], taken[:] = [times], segment_frames(times, end, settings.frames, 0.5)
        return taken[:1]  # the first tells the size

    def note_size(frame: np.ndarray) -> np.ndarray:
        sizes.append((frame.shape[0], frame.shape[1]))
        return frame[:1, :1]

    read_frames(clip.path, choose, clip.start, clip.end, note_size, frame_range=clip.frame_range)
    first = _first_frame(clip, len(part[0]))
    return [first + index for index in taken], *sizes[-1]


def _first_frame(clip: Clip, frames: int) -> int:
    """Return where in its video a clip of so many frames begins."""
    if clip.frame_range is not None:
        return clip.frame_range[0]
    if clip.start is None:
        return 0
    first = 0
    # Reading takes the second way of counting only where the first one's frames are not there.
    for count in (count_packets, count_frames):
        first, stop = part_between_times(remembered(count, clip.path, 1), clip.start, clip.end, clip.path)
        if stop - first == frames:
            break
    return first


def in_input(boxes: Iterable[Box], taken: Sequence[int], height: int, width: int, settings: ClipSettings) -> ClipTruth:
    """Take boxes from the pixels and frames of a video to those of a model's input in evaluation.

    Args:
        boxes: In pixels and frames of the video; one named ``action`` says that the action is under way.
        taken: The video's frames that the model sees, in their order; one may repeat.
        height: Height of the video's frames.
        width: Width of the video's frames.
        settings: How frames are resized and cropped.

    Returns:
        The boxes clipped to the crop, without those of which less than a quarter is left.
    """
    (down, across), (top, left) = input_square(height, width, settings)
    scale, shift = (across / width, down / height), (left, top)
    places: dict[int, list[int]] = defaultdict(list)
    for place, frame in enumerate(taken):
        places[frame].append(place)
    kept, acting = [], [False] * len(taken)
    timed = False
    for box in boxes:
        timed |= box.name == ACTION
        for place in places.get(box.frame, ()):
            if box.name == ACTION:
                acting[place] = True
                continue
            x0, x1 = (edge * scale[0] - shift[0] for edge in (box.x0, box.x1))
            y0, y1 = (edge * scale[1] - shift[1] for edge in (box.y0, box.y1))
            inside = [min(max(edge, 0.0), float(settings.size)) for edge in (x0, y0, x1, y1)]
            area = (inside[2] - inside[0]) * (inside[3] - inside[1])
            if 0 < area >= _LEAST_VISIBLE * (x1 - x0) * (y1 - y0):
                kept.append(Box(box.name, place, *inside))
    kept.sort(key=lambda box: (box.frame, box.name))
    return ClipTruth(tuple(kept), tuple(acting) if timed else ())


def input_square(height: int, width: int, settings: ClipSettings) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a video's height and width after resizing, and the upper left corner of what evaluation cuts out."""
    resized = _resized(height, width, settings.short_side)
    return resized, crop_corner(*resized, settings.size)


def _resized(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the height and width that `sightline.video.transforms.resize_short_side` gives."""
    long_side = int(short_side * max(height, width) / min(height, width))
    return (short_side, long_side) if height <= width else (long_side, short_side)
