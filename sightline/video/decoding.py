"""Reading the wanted frames of a video file, and only those, as upright RGB.

Where the timeline knows at which key frames decoding may begin, no more is decoded than the wanted frames need
(`selective_decoding`); elsewhere, or where that does not come out as foreseen, decoding begins at the video's start
and, for a whole clip, goes on to its end. Either way the frames are those of decoding everything. Only wanted frames
are converted to RGB, which costs more than decoding.

A clip is readable if its packets are all there, the frames chosen can be decoded, and the decoder hid no error in them
or in those that they are made from (`damage`). Damage in a part that no chosen frame is made from goes unnoticed here.

Nothing of FFmpeg's outlives a call: containers are closed, and decoding and conversion use one thread unless more are
asked for. A container, or a converter with threads, that is left over in a process that is then forked hangs the child.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike, fspath
from typing import Literal

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sightline.video.damage import Damage
from sightline.video.selective_decoding import decode_selected
from sightline.video.timeline import (
    Choose,
    chosen_frames,
    count_frames,
    count_packets,
    lost_frames,
    remembered,
    require_no_gap,
)
from sightline.video.torchcodec_decoding import decode_with_torchcodec
from sightline.video.video_file import DamagedClip, UnreadableClip, each_explained, explained, open_video
from sightline.video.wanted_frames import Convert, WantedFrames

__all__ = ["READING", "DamagedClip", "UnreadableClip", "read_frames", "stacked_frames"]

Decoder = Literal["pyav", "torchcodec"]
READING = 2  # to be raised when other frames are read than before, or are refused: frames in a cache are of one reading


def read_frames(
    path: str | PathLike[str],
    choose: Choose | Sequence[int],
    start: float | None = None,
    end: float | None = None,
    convert: Convert | None = None,
    threads: int = 1,
    frame_range: tuple[int, int] | None = None,
    every_frame: bool = False,
    decoder: Decoder = "pyav",
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
        every_frame: Decode all frames of the part, so that damage anywhere in it is found.
        decoder: What decodes. With ``torchcodec`` PyAV still reads what that would read otherwise.

    Returns:
        uint8 (T, H, W, 3), RGB, one for every chosen index.

    Raises:
        DamagedClip: Where the decoder hid errors in frames that were chosen, or, with ``every_frame``, in any.
        UnreadableClip: Where the file cannot be opened, has no such frames, is cut short, has a gap, or is damaged.
        ValueError: Where the part is given both in seconds and in frames.
    """
    name = fspath(path)
    whole = start is None and end is None and frame_range is None
    packets, part = None, range(0)
    for count in (count_packets, count_frames):
        timeline = count(name, threads) if whole else remembered(count, name, threads)
        if packets is not None and (lost := lost_frames(packets, timeline, part.stop)):
            raise DamagedClip(name, f"damaged: of {part.stop} frames {lost} cannot be decoded")
        chosen, part = chosen_frames(timeline, choose, start, end, frame_range, name)
        require_no_gap(timeline, part, start, end, name)
        last = part.stop if every_frame else max(chosen) + 1
        needed = len(timeline.times) if whole else last
        taken = WantedFrames(name, set(chosen), convert, threads)
        if not every_frame:
            if decoder == "torchcodec" and decode_with_torchcodec(name, timeline, taken):
                return stacked_frames(taken.frames, chosen, name)
            if decode_selected(name, timeline, taken):
                return stacked_frames(taken.frames, chosen, name)
        decoded, damage = _decode_from_the_start(name, needed, whole, taken)
        if decoded == needed:
            read = set(part) if every_frame else taken.wanted
            if damaged := damage.frames() & read:
                raise DamagedClip(name, damage.reason(len(damaged), len(read)))
            return stacked_frames(taken.frames, chosen, name)
        packets = timeline
    raise UnreadableClip(name, f"expected {needed} frames, {decoded} decoded")


def _decode_from_the_start(path: str, needed: int, to_the_end: bool, taken: WantedFrames) -> tuple[int, Damage]:
    """Decode the first ``needed`` frames, or all, and say how many were decoded and what is damaged."""
    decoded = 0
    how_far = lambda: f"expected {needed} frames, {decoded} decoded"  # noqa: E731
    enough = lambda: decoded >= needed and not to_the_end  # noqa: E731
    with open_video(path, taken.threads) as (container, stream):
        with explained(path, how_far):
            damage = Damage(stream.codec_context)
        for frame in each_explained(_frames(container, stream, damage, enough), path, how_far):
            damage.came(frame)
            if not enough():
                taken.offer(decoded, frame)
                decoded += 1
    return decoded, damage


def _frames(
    container: InputContainer, stream: VideoStream, damage: Damage, enough: Callable[[], bool]
) -> Iterator[VideoFrame]:
    """Frames until there are enough, and those that were decoded by then: a B picture is made from some behind it."""
    for packet in container.demux(stream):
        damage.sent(packet)
        yield from stream.codec_context.decode(packet)
        if packet.size and enough():  # the last packet has no size, and empties the decoder by itself
            yield from stream.codec_context.decode(None)
            return


def stacked_frames(frames: dict[int, np.ndarray], chosen: Sequence[int], path: str) -> np.ndarray:
    """Return the chosen ones of these frames, uint8 (T, H, W, 3).

    Raises:
        UnreadableClip: Where they are not of one size.
    """
    shapes = {frame.shape for frame in frames.values()}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{width}x{height}" for height, width, _ in shapes))
        raise UnreadableClip(path, f"expected frames of one size, got {sizes}")
    return np.stack([frames[index] for index in chosen])
