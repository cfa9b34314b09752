"""When the frames of a video are shown, which of them a part of it holds, and where decoding may begin.

What headers say about counts and durations is not believed: the packets are counted (no decoding, under a millisecond
for a short clip), or, where packets and frames do not correspond, the decoded frames. A header is used for one thing:
to notice that a file ends before it should.

A part of a long video can be decoded from a key frame on, if it is known which frames then come out. That is known
where every packet has a time stamp of its own and gives exactly one frame, and where all that precedes the key frame in
the file is also shown before it. Elsewhere a timeline offers no key frames, and decoding begins at the video's start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

import av
import numpy as np

from sightline.video.video_file import UnreadableClip, explained, open_video

_ROUNDING_S = 1e-3  # annotations and Matroska files round times to milliseconds
_OVERHANG_S = 1.0  # how far a clip's annotated end may lie behind the end of its video

# Codecs whose key frames reset the decoder and whose packets are one shown frame each. VP8 and VP9 have packets that
# are not shown.
_SEEKABLE = {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "av1", "mjpeg", "ffv1"}
# MPEG-4 has packets that say "no new frame"; FFmpeg's own parser takes packets of up to this size for such.
_EMPTY_MPEG4_BYTES = 19
# Of these, FFmpeg only guesses the order of display where the container does not say it, as AVI does not.
_REORDERED = {"h264", "hevc"}
_GAP_S, _GAP_STEPS = 10.0, 10
_REMEMBERED = 32  # timelines: some 100 MB for videos of an hour


def _nothing() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
        times: Seconds from the first frame, in the order of display.
        end: When the last frame ends.
        expected_frames: How many frames the file's header promises, 0 where it says nothing.
        truncated: Whether the file ends before its header says.
        stamps: The frames' time stamps in the order of display, empty where they do not tell frames apart.
        positions: Which packet each of these frames comes from, counted in the order of the file.
        keys: Those time stamps, rising, at which decoding may begin.
    """

    times: np.ndarray
    end: float
    expected_frames: int = 0
    truncated: bool = False
    stamps: np.ndarray = field(default_factory=_nothing)
    positions: np.ndarray = field(default_factory=_nothing)
    keys: np.ndarray = field(default_factory=_nothing)

    def shown(self, first: int, stop: int) -> tuple[np.ndarray, float]:
        """When the frames first..stop-1 begin, and when the last of them ends."""
        return self.times[first:stop], float(self.times[stop]) if stop < len(self.times) else self.end


@dataclass
class _Packets:
    """The stamps of a video's packets in the order of the file."""

    stamps: list[int | None] = field(default_factory=list)
    is_key: list[bool] = field(default_factory=list)
    is_cut: list[bool] = field(default_factory=list)
    one_frame_each: bool = True
    last_is_cut_short: bool = False


Count = Callable[[str, int], Timeline]
# The indices to read, for the times at which frames begin and the one at which the last of them ends.
Choose = Callable[[np.ndarray, float], Sequence[int]]


def remembered(count: Count, path: str, threads: int) -> Timeline:
    """The timeline, counted only once for a file that stays as it is: parts of one video are asked for in turn."""
    try:
        state = os.stat(path)
    except OSError:
        return count(path, threads)  # which says what is the matter
    return _counted(count, path, threads, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_REMEMBERED)
def _counted(count: Count, path: str, threads: int, size: int, mtime_ns: int) -> Timeline:
    return count(path, threads)


def count_packets(path: str, threads: int = 1) -> Timeline:
    """The timeline as the packets tell it, without decoding any."""
    times: list[float | None] = []
    packets, video_end, file_end = _Packets(), 0.0, 0.0
    scales: dict[int, float] = {}
    with (
        open_video(path, threads) as (container, stream),
        explained(path, lambda: f"{len(packets.stamps)} packets read"),
    ):
        codec = stream.codec_context.codec.canonical_name
        smallest = _EMPTY_MPEG4_BYTES if codec == "mpeg4" else 0
        order_is_guessed = codec in _REORDERED and container.format.name == "avi"
        reorders = codec in _REORDERED and stream.codec_context.has_b_frames
        rate, header_frames = stream.average_rate, stream.frames
        duration = (container.duration or 0) / av.time_base
        frame_s = 1 / float(rate) if rate else 0.04
        for packet in container.demux():
            pts, index = packet.pts, packet.stream.index
            stamp = packet.dts if pts is None else pts
            if packet.size == 0 and stamp is None:
                continue  # PyAV's mark of the end of a stream
            if index not in scales:  # PyAV makes a fraction of it each time, which would take half of the time
                scales[index] = float(packet.time_base) if packet.time_base else 0.0
            scale = scales[index]
            time = None if stamp is None else stamp * scale
            stops = 0.0 if time is None else time + ((packet.duration or 0) * scale or frame_s)
            file_end = max(file_end, stops)
            if index == stream.index:
                is_cut = packet.is_discard  # an edit list cuts these frames off
                packets.stamps.append(pts)
                packets.is_key.append(packet.is_keyframe)
                packets.is_cut.append(is_cut)
                packets.one_frame_each &= packet.size > smallest
                packets.last_is_cut_short = packet.is_corrupt
                video_end = max(video_end, stops)
                if not is_cut:
                    times.append(time)
        if "mov" in container.format.name.split(","):
            # The samples that the tables list, of which an edit list may show a part; the header counts all.
            header_frames = len(stream.index_entries)
    timeline = _timeline(times, video_end, frame_s, path)
    # Nor does it say so where frames come in another order, and yet the packets' stamps only rise.
    order_is_guessed |= reorders and all(a < b for a, b in pairwise(packets.stamps) if a is not None and b is not None)
    if codec in _SEEKABLE and not order_is_guessed:
        stamps, positions, keys = _entries(packets)
        timeline = replace(timeline, stamps=stamps, positions=positions, keys=keys)
    if header_frames:
        # Both must fall short: a variable frame rate gives fewer frames than slots, an edit list a shorter time.
        promised_s = header_frames * frame_s
        truncated = len(packets.stamps) < header_frames and timeline.end < promised_s - 1.5 * frame_s
        truncated |= packets.last_is_cut_short
        return replace(timeline, expected_frames=header_frames, truncated=truncated)
    truncated = packets.last_is_cut_short or (bool(file_end) and file_end < duration - max(0.25, 2 * frame_s))
    return replace(timeline, expected_frames=round(duration / frame_s), truncated=truncated)


def count_frames(path: str, threads: int = 1) -> Timeline:
    """The timeline as the decoded frames tell it: slow, and right where packets and frames do not correspond."""
    times: list[float | None] = []
    stamps: list[int | None] = []
    with open_video(path, threads) as (container, stream), explained(path, lambda: f"{len(times)} frames decoded"):
        frame_s = 1 / float(stream.average_rate) if stream.average_rate else 0.04
        for frame in container.decode(stream):
            times.append(frame.time)
            stamps.append(frame.pts)
    known = [stamp for stamp in stamps if stamp is not None]
    unique = np.unique(known) if len(set(known)) == len(stamps) else _nothing()
    return replace(_timeline(times, 0.0, frame_s, path), stamps=unique)


def lost_frames(packets: Timeline, frames: Timeline, stop: int) -> int:
    """How many frames before the one with index ``stop`` no decoder gives, though their packets are there.

    So it is where key frames are missing. That two packets make one frame (interlaced pictures) or that the first
    packets make none (a stream that begins between key frames) is nothing missing: only two and more in a row count,
    and only behind the first frame.

    Args:
        packets: The timeline that the packets tell.
        frames: The one that the decoded frames tell.
        stop: Index of a frame in the former.
    """
    if not len(frames.stamps):
        return 0
    due = packets.stamps[:stop]
    came = np.flatnonzero(np.isin(due, frames.stamps))
    missing = np.diff(np.append(came, len(due))) - 1
    return int(missing[missing > 1].sum())


def _timeline(times: Sequence[float | None], end: float, frame_s: float, path: str) -> Timeline:
    """Times counted from the first frame; in the order of display, which is that of rising times."""
    if not times:
        raise UnreadableClip(path, "expected a video, the file holds no frame")
    known = sorted(time for time in times if time is not None)
    if len(known) < len(times):  # raw streams have no times at all
        return Timeline(np.arange(len(times)) * frame_s, len(times) * frame_s)
    rising = np.array(known) - known[0]
    # frame_s is a mean: where the last frame's own duration is known, that holds.
    return Timeline(rising, end - known[0] if end > known[-1] else rising[-1] + frame_s)


def _entries(packets: _Packets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frames' stamps, their packets' positions, and the stamps of the key frames to begin at; or nothing."""
    known = [stamp for stamp in packets.stamps if stamp is not None]
    if not packets.one_frame_each or len(known) < len(packets.stamps) or len(set(known)) < len(known):
        return _nothing(), _nothing(), _nothing()
    stamps, is_key, is_cut = np.array(known), np.array(packets.is_key), np.array(packets.is_cut)
    # Frames shown before the first key frame lack what they were made from: the decoder leaves them out.
    if not is_key[0] or stamps.min() < stamps[0]:
        return _nothing(), _nothing(), _nothing()
    latest_before = np.concatenate([stamps[:1] - 1, np.maximum.accumulate(stamps)[:-1]])
    shown = np.argsort(stamps)
    shown = shown[~is_cut[shown]]
    return stamps[shown], shown, stamps[is_key & ~is_cut & (stamps > latest_before)]


def chosen_frames(
    timeline: Timeline,
    choose: Choose | Sequence[int],
    start: float | None,
    end: float | None,
    frame_range: tuple[int, int] | None,
    path: str,
) -> tuple[list[int], range]:
    """Return the frames chosen from a part of a video, and all frames of the part, counted in the whole of the video.

    Raises:
        UnreadableClip: Where the video has no such part or the part no such frames.
        ValueError: Where the part is given both in seconds and in frames.
    """
    if frame_range is None:
        first, stop = part_between_times(timeline, start, end, path)
    elif start is None and end is None:
        first, stop = part_between_frames(timeline, *frame_range, path)
    else:
        raise ValueError(f"Expected start and end, or frame_range, got start={start}, end={end} and {frame_range}.")
    chosen = [first + index for index in (choose(*timeline.shown(first, stop)) if callable(choose) else choose)]
    if not chosen or min(chosen) < first or max(chosen) >= stop:
        raise UnreadableClip(path, f"expected frames {chosen} to be among {first}..{stop - 1}")
    return chosen, range(first, stop)


def require_no_gap(timeline: Timeline, part: range, start: float | None, end: float | None, path: str) -> None:
    """See to it that a part of a video does not mostly lie in a gap of the recording, where one frame stands still.

    A gap is where no frame begins for more than 10 s, and for more than ten times as long as is usual in this video: a
    slide show has none. How long a video's last frame is shown says nothing of its recording.

    Args:
        timeline: The video's timeline.
        part: The frames of the part.
        start: Where it begins, in seconds; None for its first frame.
        end: Where it ends; None for its last frame.
        path: The video file.

    Raises:
        UnreadableClip: Where more than half of the part lies in a gap.
    """
    begins = timeline.times[part.start : part.stop + 1]  # with the first frame behind the part
    steps = np.diff(begins)
    if not len(steps) or steps.max() <= _GAP_S:
        return
    usual = float(np.median(np.diff(timeline.times)))
    place = int(steps.argmax())
    first = float(begins[0]) if start is None else start
    last = float(timeline.times[part.stop - 1]) + usual if end is None else end
    missing = min(float(begins[place + 1]), last) - max(float(begins[place]), first)
    if steps[place] > _GAP_STEPS * usual and missing > (last - first) / 2:
        gap = f"{begins[place]:.4g}..{begins[place + 1]:.4g} s"
        raise UnreadableClip(path, f"expected frames all the time, the video has none in {gap}, most of the clip")


def part_between_times(timeline: Timeline, start: float | None, end: float | None, path: str) -> tuple[int, int]:
    """Index of the first frame between the two times, and of the first one behind."""
    count, video_end = len(timeline.times), timeline.end
    # A cut file still holds what lies well before the cut.
    if timeline.truncated and (end is None or end > video_end):
        raise UnreadableClip(path, f"truncated: expected {timeline.expected_frames} frames, the file holds {count}")
    if start is not None and start >= video_end:
        raise UnreadableClip(path, f"expected a clip from {start:g} s on, the video ends at {video_end:.2f} s")
    if end is not None and end > video_end + _OVERHANG_S:
        raise UnreadableClip(path, f"expected a clip until {end:g} s, the video ends at {video_end:.2f} s")
    first = 0 if start is None else int(np.searchsorted(timeline.times, start - _ROUNDING_S))
    stop = count if end is None else int(np.searchsorted(timeline.times, end - _ROUNDING_S))
    if first >= stop:  # shorter than a frame: the one shown at that moment
        shown = int(np.searchsorted(timeline.times, (start or 0.0) + _ROUNDING_S)) - 1
        return max(shown, 0), max(shown, 0) + 1
    return first, stop


def part_between_frames(timeline: Timeline, first: int, stop: int, path: str) -> tuple[int, int]:
    """The same two indices, if the video holds all these frames."""
    count = len(timeline.times)
    if not 0 <= first < stop <= count:
        cut = f", cut short from {timeline.expected_frames}" if timeline.truncated else ""
        raise UnreadableClip(path, f"expected frames {first}..{stop - 1}, found {count} frames{cut}")
    return first, stop
