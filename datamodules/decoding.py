"""Reading the wanted frames of a video file, and only those, as upright RGB.

Of a whole clip every frame is decoded, so that whether it is readable does not depend on the frames chosen. Of a part,
decoding begins at the last key frame before the first wanted frame where the timeline knows one, and ends with the last
wanted frame. Frames after a jump are recognised by their time stamps, never counted; at the first one that is not as
foreseen, decoding begins anew at the key frame before, and then at the video's start. Only wanted frames are converted
to RGB, which costs more than decoding.

Nothing of FFmpeg's outlives a call: containers are closed, and decoding and conversion use one thread unless more are
asked for. A container, or a converter with threads, that is left over in a process that is then forked hangs the child.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from os import PathLike, fspath

import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from datamodules.timeline import (
    Timeline,
    count_frames,
    count_packets,
    part_between_frames,
    part_between_times,
    remembered,
)
from datamodules.video_file import UnreadableClip, explained, open_video

__all__ = ["UnreadableClip", "read_frames"]

Choose = Callable[[np.ndarray, float], Sequence[int]]
Convert = Callable[[np.ndarray], np.ndarray]

_JUMPS = 2  # to the key frame before the first wanted frame and, if that does not work, to the one before


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
        choose: The indices to read, or a function that gives them for the times in seconds at which the part's frames
            begin, and the one at which the last of them ends; an index may repeat.
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
        timeline = count(name, threads) if whole else remembered(count, name, threads)
        if frame_range is None:
            first, stop = part_between_times(timeline, start, end, name)
        else:
            first, stop = part_between_frames(timeline, *frame_range, name)
        chosen = [first + index for index in (choose(*timeline.shown(first, stop)) if callable(choose) else choose)]
        if not chosen or min(chosen) < first or max(chosen) >= stop:
            raise UnreadableClip(name, f"expected frames {chosen} to be among {first}..{stop - 1}")
        needed = len(timeline.times) if whole else max(chosen) + 1
        taken = _Taken(set(chosen), convert, threads)
        if not whole and _decode_from_a_key(name, timeline, taken):
            return _stack(taken.frames, chosen, name)
        taken = _Taken(set(chosen), convert, threads)
        decoded = _decode_from_the_start(name, needed, whole, taken)
        if decoded == needed:
            return _stack(taken.frames, chosen, name)
    raise UnreadableClip(name, f"expected {needed} frames, {decoded} decoded")


class _Taken:
    """The wanted frames among those offered, upright and converted."""

    def __init__(self, wanted: Collection[int], convert: Convert | None, threads: int) -> None:
        self.frames: dict[int, np.ndarray] = {}
        self.wanted = wanted
        self.threads = threads
        self._convert = convert
        self._turn: Convert | None = None
        self._to_rgb = VideoReformatter()

    def offer(self, index: int, frame: VideoFrame) -> None:
        if index not in self.wanted:
            return
        if self._turn is None:
            self._turn = _turn(frame)
        rgb = self._turn(self._to_rgb.reformat(frame, format="rgb24", threads=self.threads).to_ndarray())
        self.frames[index] = rgb if self._convert is None else self._convert(rgb)


def _decode_from_the_start(path: str, needed: int, to_the_end: bool, taken: _Taken) -> int:
    """Decode the first ``needed`` frames, or all, and say how many were decoded."""
    decoded = 0
    how_far = lambda: f"expected {needed} frames, {decoded} decoded"  # noqa: E731
    with open_video(path, taken.threads) as (container, stream), explained(path, how_far):
        for frame in container.decode(stream):
            taken.offer(decoded, frame)
            decoded += 1
            if decoded == needed and not to_the_end:
                break
    return decoded


def _decode_from_a_key(path: str, timeline: Timeline, taken: _Taken) -> bool:
    """Decode from a key frame in the video to the last wanted frame, if that is certain to give the right ones."""
    if not len(timeline.keys):
        return False
    # Only key frames shown before the wanted ones: what is shown before a key frame but lies behind it in the file
    # may be made from frames before it.
    keys = timeline.keys[timeline.keys <= timeline.stamps[min(taken.wanted)]]
    for key in keys[:0:-1][:_JUMPS]:  # backwards, without the first: that is the start
        try:
            if _decode_from(path, int(key), timeline, taken):
                return True
        except UnreadableClip:
            continue  # if the file is damaged, decoding from the start will say so
    return False


def _decode_from(path: str, key: int, timeline: Timeline, taken: _Taken) -> bool:
    """Decode from the key frame with this stamp, as long as every frame comes as the timeline says."""
    last, index = max(taken.wanted), -1
    with open_video(path, taken.threads) as (container, stream), explained(path, lambda: "no more packets"):
        container.seek(key, stream=stream)
        packets = container.demux(stream)
        entry = _entry(packets, key, timeline)
        if entry is None or entry.pts is None:
            return False
        for packet in chain([entry], packets):
            for frame in packet.decode():
                if not isinstance(frame, VideoFrame) or frame.pts is None:
                    return False
                if index < 0:
                    if frame.pts < entry.pts:
                        continue  # shown before the key frame, perhaps made from what was jumped over
                    # Some files call frames key frames at which a decoder cannot begin; the decoder knows.
                    if not frame.key_frame or frame.pict_type != PictureType.I:
                        return False
                    index = int(np.searchsorted(timeline.stamps, entry.pts))
                if frame.pts != timeline.stamps[index] or frame.is_corrupt:
                    return False
                taken.offer(index, frame)
                if index == last:
                    return True
                index += 1
    return False


def _entry(packets: Iterator[Packet], key: int, timeline: Timeline) -> Packet | None:
    """The packet to begin with: that of the key frame, or of one before if the container led there."""
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            if packet.pts > key:
                return None  # seeking went too far, as in files without an index
            if packet.pts in timeline.keys:
                return packet
    return None


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
