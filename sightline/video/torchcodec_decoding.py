"""Decoding with torchcodec, for files of which it gives the same frames as PyAV.

torchcodec finds frames by the time stamps that packets carry, and turns but never mirrors them. Where packets and
frames do not correspond (B pictures in AVI, streams that begin in the middle), it gives other frames than asked for, or
none. So the first frame of a file is compared with PyAV's once, and of every frame the time stamp with the one that the
packets promise. Where these differ PyAV reads the file, and a warning says so, once per reason and process.

torchcodec does not say which frames are damaged either. So PyAV decodes every file once in each process, without
converting its frames, and goes on reading those in which it finds a damaged one.

Its colours may differ by rounding where it runs on another FFmpeg than PyAV does; larger differences count as others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from sightline.video.timeline import Timeline
from sightline.video.video_file import UnreadableClip, each_explained, explained, open_video
from sightline.video.wanted_frames import WantedFrames, display_matrix

log = logging.getLogger(__name__)

_ROUNDING_LEVELS = 2  # of 255: what other versions of FFmpeg's colour conversion differ by
_SAME_STAMP_S = 1e-6
_said: set[str] = set()


@cache
def require_torchcodec() -> str:
    """The version of torchcodec and of the FFmpeg it runs on, or a ValueError that says what is missing."""
    try:
        import torchcodec

        _open(b"")
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        # Some versions load FFmpeg when they are imported, others when something is opened; the latter complain about
        # the empty file once FFmpeg is there.
        if isinstance(error, ImportError | OSError) or "load libtorchcodec" in str(error):
            raise ValueError(
                f"Expected torchcodec to load, since decoder is 'torchcodec', got: {_headline(error)}. Install "
                "torchcodec and the shared libraries of FFmpeg on this system, or leave decoder at 'pyav'."
            ) from error
    return f"{torchcodec.__version__}, FFmpeg {getattr(torchcodec, 'ffmpeg_major_version', 'unknown')}"


def _headline(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")


def decode_with_torchcodec(path: str, timeline: Timeline, taken: WantedFrames) -> bool:
    """Decode the wanted frames, if torchcodec gives those that decoding everything with PyAV gives."""
    indices = sorted(taken.wanted)
    reason = _decode(path, timeline, indices, taken)
    if reason:
        taken.frames.clear()
        _say_once(reason, path)
    return not reason


def _decode(path: str, timeline: Timeline, indices: Sequence[int], taken: WantedFrames) -> str:
    """Take the frames; the answer is why they are not to be used, or empty."""
    try:
        state = os.stat(path)
        reason, begins, decoded = _checked(path, state.st_size, state.st_mtime_ns)
        if reason:
            return reason
        with explained(path, lambda: "not opened"):
            video = _open(path, taken.threads)
            count = len(video)
        if not count == decoded == len(timeline.times):
            return "it counts other frames"
        for index in indices:  # one by one: large frames must not pile up
            rgb, begun = _frame(video, index, path)
            # Counted from PyAV's first frame: what torchcodec takes for the first stamp may not be that of a frame.
            if abs(begun - begins - timeline.times[index]) > _SAME_STAMP_S:
                return "its frames have other time stamps"
            taken.put(index, rgb)
    except (UnreadableClip, OSError):
        return "it cannot decode it"
    return ""


def _frame(video: Any, index: int, path: str) -> tuple[np.ndarray, float]:
    """One of torchcodec's frames (H, W, 3) and when it begins, in seconds."""
    with explained(path, lambda: "not decoded"):
        frame = video.get_frame_at(index)
        return frame.data.numpy(), float(frame.pts_seconds)


@lru_cache(maxsize=100_000)
def _checked(path: str, size: int, mtime_ns: int) -> tuple[str, float, int]:
    """Why a file is not one for torchcodec, empty if it is; when PyAV's first frame begins; how many PyAV gives."""
    first = WantedFrames(path, {0}, None, 1)
    kept: list[VideoFrame] = []
    count = 0
    try:
        with open_video(path, 1) as (container, stream):
            for frame in each_explained(container.decode(stream), path, lambda: "not decoded"):
                if frame.is_corrupt:
                    return "it does not say which frames are damaged", 0.0, 0
                count += 1
                if not kept:
                    kept.append(frame)
                    first.offer(0, frame)
    except UnreadableClip:
        kept.clear()
    if not kept:
        return "it is damaged", 0.0, 0  # PyAV will say in which way
    [frame] = kept
    a, b, c, d = display_matrix(frame)
    if a * d - b * c < 0:
        return "it does not mirror frames", 0.0, 0
    if any(component.bits > 8 for component in frame.format.components):
        return "it converts colours of more than 8 bits in another way", 0.0, 0
    with explained(path, lambda: "not opened"):
        video = _open(path)
    (its, _), expected = _frame(video, 0, path), first.frames[0]
    if its.shape != expected.shape:
        return "its frames have another size", 0.0, 0
    if frame.time is None or np.abs(its.astype(np.int16) - expected).max() > _ROUNDING_LEVELS:
        return "its first frame differs", 0.0, 0
    return "", frame.time, count


def _open(source: str | bytes, threads: int = 1) -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=threads, device="cpu")


def _say_once(reason: str, path: str) -> None:
    if reason not in _said:
        _said.add(reason)
        log.warning("PyAV reads %s, and others like it, instead of torchcodec: %s.", path, reason)
