"""Reading the wanted frames of a video file, and only those, as upright RGB.

What headers say about counts and durations is not believed: the packets are counted first (no decoding, under a
millisecond for a short clip), and where the decoder then gives another number of frames, the frames themselves are
counted. A header is used for one thing: to notice that a file ends before it should. Every frame up to the last wanted
one is decoded, but only wanted ones are converted to RGB, which costs more than decoding.

Nothing of FFmpeg's outlives a call: containers are closed, and decoding and conversion use one thread unless more are
asked for. A container, or a converter with threads, that is left over in a process that is then forked hangs the child.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

Choose = Callable[[int], Sequence[int]]
Convert = Callable[[np.ndarray], np.ndarray]

_ROUNDING_S = 1e-3  # annotations and Matroska files round times to milliseconds
_OVERHANG_S = 1.0  # how far a clip's annotated end may lie behind the end of its video


class UnreadableClip(Exception):  # noqa: N818 - it says what the clip is, and names a batch's ``unreadable``
    """A clip's frames cannot be had from its file.

    Attributes:
        path: The file.
        reason: Why, in one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
        times: Seconds from the first frame, in the order of display.
        end: When the last frame ends.
        expected_frames: How many frames the file's header promises, 0 where it says nothing.
        truncated: Whether the file ends before its header says.
    """

    times: np.ndarray
    end: float
    expected_frames: int = 0
    truncated: bool = False


def read_frames(
    path: str | PathLike[str],
    choose: Choose | Sequence[int],
    start: float | None = None,
    end: float | None = None,
    convert: Convert | None = None,
    threads: int = 1,
    frame_range: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read chosen frames of a video, or of a part of it: between two times, or between two frames.

    Frames are counted in the order of display within the part, which holds the frames whose time t, in seconds from the
    video's first frame, has ``start <= t < end`` (at least the one shown at ``start``). A part may reach up to a second
    beyond the video's end, but not one given in frames. Pixels are taken as square, whatever the file says of their
    shape.

    Args:
        path: The video file.
        choose: The indices to read, or a function that gives them for a number of frames; an index may repeat.
        start: Where the part begins; by default at the first frame.
        end: Where it ends; by default with the last frame.
        convert: Applied to each (H, W, 3) frame right after decoding, so that large frames never pile up.
        threads: Threads that decode and convert.
        frame_range: The part as (first, stop): frames first..stop-1 of the whole video; instead of start and end.

    Returns:
        uint8 (T, H, W, 3), RGB, one for every chosen index.

    Raises:
        UnreadableClip: Where the file cannot be opened, has no such frames, is cut short, or is damaged.
        ValueError: Where the part is given both in seconds and in frames.
    """
    if frame_range is not None and (start is not None or end is not None):
        raise ValueError(f"Expected start and end, or frame_range, got start={start}, end={end} and {frame_range}.")
    name = fspath(path)
    whole = start is None and end is None and frame_range is None
    for count in (count_packets, count_frames):
        timeline = count(name, threads)
        first, stop = _frames(timeline, *frame_range, name) if frame_range else _part(timeline, start, end, name)
        chosen = [first + index for index in (choose(stop - first) if callable(choose) else choose)]
        if not chosen or min(chosen) < first or max(chosen) >= stop:
            raise UnreadableClip(name, f"expected frames {chosen} to be among {first}..{stop - 1}")
        # A whole clip is decoded to its end: whether it is readable must not depend on the frames chosen.
        needed = len(timeline.times) if whole else max(chosen) + 1
        frames, decoded = _decode(name, set(chosen), needed, whole, convert, threads)
        if decoded == needed:
            return _stack(frames, chosen, name)
    raise UnreadableClip(name, f"expected {needed} frames, {decoded} decoded")


def count_packets(path: str, threads: int = 1) -> Timeline:
    """The timeline as the packets tell it, without decoding any."""
    times: list[float | None] = []
    packets, video_end, file_end = 0, 0.0, 0.0
    with _open(path, threads) as (container, stream):
        rate, header_frames = stream.average_rate, stream.frames
        duration = (container.duration or 0) / av.time_base
        frame_s = 1 / float(rate) if rate else 0.04
        with _explained(path, lambda: f"{packets} packets read"):
            for packet in container.demux():
                stamp = packet.dts if packet.pts is None else packet.pts
                if packet.size == 0 and stamp is None:
                    continue  # PyAV's mark of the end of a stream
                scale = float(packet.time_base) if packet.time_base else 0.0
                time = None if stamp is None else stamp * scale
                stops = 0.0 if time is None else time + ((packet.duration or 0) * scale or frame_s)
                file_end = max(file_end, stops)
                if packet.stream.index == stream.index:
                    packets += 1
                    video_end = max(video_end, stops)
                    if not packet.is_discard:  # an edit list cuts these frames off
                        times.append(time)
    timeline = _timeline(times, video_end, frame_s, path)
    if header_frames:
        # Both must fall short: a variable frame rate gives fewer frames than slots, an edit list a shorter time.
        promised_s = header_frames * frame_s
        truncated = packets < header_frames and timeline.end < promised_s - 1.5 * frame_s
        return Timeline(timeline.times, timeline.end, header_frames, truncated)
    truncated = bool(file_end) and file_end < duration - max(0.25, 2 * frame_s)
    return Timeline(timeline.times, timeline.end, round(duration / frame_s), truncated)


def count_frames(path: str, threads: int = 1) -> Timeline:
    """The timeline as the decoded frames tell it: slow, and right where packets and frames do not correspond."""
    times: list[float | None] = []
    with _open(path, threads) as (container, stream):
        frame_s = 1 / float(stream.average_rate) if stream.average_rate else 0.04
        with _explained(path, lambda: f"{len(times)} frames decoded"):
            times.extend(frame.time for frame in container.decode(stream))
    return _timeline(times, 0.0, frame_s, path)


def _timeline(times: Sequence[float | None], end: float, frame_s: float, path: str) -> Timeline:
    """Times counted from the first frame; in the order of display, which is that of rising times."""
    if not times:
        raise UnreadableClip(path, "expected a video, the file holds no frame")
    known = sorted(time for time in times if time is not None)
    if len(known) < len(times):  # raw streams have no times at all
        return Timeline(np.arange(len(times)) * frame_s, len(times) * frame_s)
    rising = np.array(known) - known[0]
    return Timeline(rising, max(end - known[0], rising[-1] + frame_s))


def _part(timeline: Timeline, start: float | None, end: float | None, path: str) -> tuple[int, int]:
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


def _frames(timeline: Timeline, first: int, stop: int, path: str) -> tuple[int, int]:
    """The range of frames, if the video holds all of them."""
    count = len(timeline.times)
    if not 0 <= first < stop <= count:
        cut = f", cut short from {timeline.expected_frames}" if timeline.truncated else ""
        raise UnreadableClip(path, f"expected frames {first}..{stop - 1}, found {count} frames{cut}")
    return first, stop


def _decode(
    path: str, wanted: Collection[int], needed: int, to_the_end: bool, convert: Convert | None, threads: int
) -> tuple[dict[int, np.ndarray], int]:
    """Decode the first ``needed`` frames, or all: the wanted ones, converted, and how many were decoded."""
    frames: dict[int, np.ndarray] = {}
    decoded = 0
    turn: Convert = np.ascontiguousarray
    to_rgb = VideoReformatter()
    how_far = lambda: f"expected {needed} frames, {decoded} decoded"  # noqa: E731
    with _open(path, threads) as (container, stream), _explained(path, how_far):
        for frame in container.decode(stream):
            if decoded == 0:
                turn = _turn(frame)
            if decoded in wanted:
                rgb = turn(to_rgb.reformat(frame, format="rgb24", threads=threads).to_ndarray())
                frames[decoded] = rgb if convert is None else convert(rgb)
            decoded += 1
            if decoded == needed and not to_the_end:
                break
    return frames, decoded


def _turn(frame: VideoFrame) -> Convert:
    """What sets an image (H, W, 3) of this video upright: turning and mirroring as the display matrix says."""
    # PyAV's frames form a reference cycle with their side data, and would keep their memory until Python looks for
    # cycles: so a thumbnail is asked.
    thumbnail = VideoReformatter().reformat(frame, width=16, height=16, interpolation="POINT", threads=1)
    data = thumbnail.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.ascontiguousarray
    # A pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift; the numbers are multiples of 1 / 65536.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))  # type: ignore[call-overload]
    transposed = abs(a) + abs(d) < abs(b) + abs(c)
    right, down = (c, b) if transposed else (a, d)

    def turn(image: np.ndarray) -> np.ndarray:
        image = image.transpose(1, 0, 2) if transposed else image
        return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])

    return turn


def _stack(frames: dict[int, np.ndarray], chosen: Sequence[int], path: str) -> np.ndarray:
    shapes = {frame.shape for frame in frames.values()}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{width}x{height}" for height, width, _ in shapes))
        raise UnreadableClip(path, f"expected frames of one size, got {sizes}")
    return np.stack([frames[index] for index in chosen])


@contextmanager
def _open(path: str, threads: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local video file at its main video stream; whatever happens it is closed again."""
    with _explained(path, lambda: "the file cannot be opened"):
        # Only local files: a playlist posing as a video must not fetch others over the network.
        container = av.open(path, metadata_errors="ignore", options={"protocol_whitelist": "file"})
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            raise UnreadableClip(path, "expected a video, the file has no video stream that can be decoded")
        stream.codec_context.thread_count = threads
        yield container, stream


@contextmanager
def _explained(path: str, progress: Callable[[], str]) -> Iterator[None]:
    """Turn FFmpeg's errors into UnreadableClip, with how far reading had come."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise UnreadableClip(path, f"{progress()}, then: {what}") from error
