"""Decoding no more packets than the wanted frames need.

Frames are made from others, but never from what lies before a key frame at which decoding may begin (`Timeline.keys`).
So between one wanted frame and the next, packets are left out up to the last key frame before it, and decoding stops at
the last wanted frame. In between, pictures that no other is made from are left out too (`unreferenced`).

Nothing here counts frames. Packets are recognised by their time stamps, and so are the frames that come out; where they
are not exactly those of the packets sent, or one is marked as damaged, the answer is that this way does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from sightline.video.timeline import Timeline
from sightline.video.unreferenced import finder
from sightline.video.video_file import UnreadableClip, each_explained, explained, open_video
from sightline.video.wanted_frames import WantedFrames

_ATTEMPTS = 2  # from the key frame before each wanted frame and, if that does not work, from the one before that
_FAR = 50  # packets; nearer ones are read, which costs less than seeking


@dataclass
class Run:
    """What is decoded in one go: from the packet of one frame to that of another; both count in the order of display.

    Attributes:
        key: The key frame.
        last: The wanted frame whose packet lies last in the file.
    """

    key: int
    last: int


def decode_selected(path: str, timeline: Timeline, taken: WantedFrames) -> bool:
    """Decode the wanted frames, if it is certain that they come out as from decoding everything."""
    for attempt in range(_ATTEMPTS):
        runs = plan(timeline, taken.wanted, attempt)
        if not runs:
            return False
        try:
            if _decode(path, timeline, runs, taken, leave_out=attempt == 0):
                return True
        except UnreadableClip:
            pass  # if the file is damaged, decoding from the start will say so, and of which frames
        taken.frames.clear()
    return False


def plan(timeline: Timeline, wanted: Iterable[int], back: int = 0) -> list[Run]:
    """Where to begin decoding and how far to go: no packet twice, and never more packets than by reading on.

    Args:
        timeline: The video's timeline; without key frames there is no plan.
        wanted: The frames, in the order of display.
        back: How many key frames to go back beyond the last one before a wanted frame.
    """
    runs: list[Run] = []
    key_frames = np.searchsorted(timeline.stamps, timeline.keys)
    for frame in sorted(wanted):
        # Only key frames shown before the wanted one: what is shown before a key frame but lies behind it in the file
        # may be made from frames before it.
        before = int(np.searchsorted(key_frames, frame, side="right"))
        if not before:
            return []
        key = int(key_frames[max(before - 1 - back, 0)])
        if not runs or timeline.positions[key] > timeline.positions[runs[-1].last]:
            runs.append(Run(key, frame))
        elif timeline.positions[frame] > timeline.positions[runs[-1].last]:
            runs[-1].last = frame
    return runs


def _decode(path: str, timeline: Timeline, runs: list[Run], taken: WantedFrames, leave_out: bool) -> bool:
    needed = set(timeline.stamps[list(taken.wanted)].tolist())
    no_more = lambda: "no more packets"  # noqa: E731
    with open_video(path, taken.threads) as (container, stream):
        with explained(path, no_more):
            decoder, packets, read = stream.codec_context, container.demux(stream), 0
            is_unreferenced = finder(decoder.codec.canonical_name, decoder.extradata)

        def is_spare(packet: Packet) -> bool:
            return leave_out and packet.pts not in needed and is_unreferenced(packet)

        for run in runs:
            key, last = int(timeline.stamps[run.key]), int(timeline.stamps[run.last])
            with explained(path, no_more):
                if timeline.positions[run.key] - read > _FAR:
                    container.seek(key, stream=stream)
                decoder.flush_buffers()
                from_key = _from_key(packets, key)
            for frame in each_explained(_frames(decoder, from_key, key, last, is_spare), path, no_more):
                taken.offer(int(np.searchsorted(timeline.stamps, frame.pts or 0)), frame)
            read = int(timeline.positions[run.last]) + 1
    return taken.wanted == taken.frames.keys()


def _from_key(packets: Iterator[Packet], key: int) -> Iterator[Packet]:
    """The packets from the key frame on; those before it, where the container did not lead to it, are read over."""
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            if packet.pts == key:
                return chain([packet], packets)
            if packet.pts > key:
                break  # seeking went too far, as in files without an index
    return iter(())


def _frames(
    decoder: VideoCodecContext, packets: Iterator[Packet], key: int, last: int, is_spare: Callable[[Packet], bool]
) -> Iterator[VideoFrame]:
    """The frames of the packets up to that with the stamp ``last``: exactly these, each once, or an error."""
    due: set[int] = set()
    begun, latest = False, key - 1
    for packet in packets:
        if packet.pts is None:
            raise _UnforeseenError
        if is_spare(packet):
            continue
        if packet.pts >= key and not packet.is_discard:
            due.add(packet.pts)
        frames = decoder.decode(packet)
        if packet.pts == last:
            frames += decoder.decode(None)
        for frame in frames:
            if frame.pts is not None and frame.pts < key:
                continue  # shown before the key frame, perhaps made from what was left out
            # Some files call frames key frames at which a decoder cannot begin; the decoder knows.
            begun = begun or (frame.pts == key and frame.key_frame and frame.pict_type == PictureType.I)
            if not begun or frame.pts not in due or frame.pts <= latest or frame.is_corrupt:
                raise _UnforeseenError
            due.remove(frame.pts)
            latest = frame.pts
            yield frame
        if packet.pts == last:
            break
    if due or not begun:
        raise _UnforeseenError


class _UnforeseenError(Exception):
    """The file does not do what its time stamps say."""
