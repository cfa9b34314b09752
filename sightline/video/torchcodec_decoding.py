"""Decoding with torchcodec, for files of which it gives the same frames as PyAV.

torchcodec finds frames by the time stamps that packets carry, and turns but never mirrors them. Where packets and
frames do not correspond (B pictures in AVI, streams that begin in the middle), it gives other frames than asked for, or
none. So the first frame of a file is compared with PyAV's once, and of every frame the time stamp with the one that the
packets promise. Where these differ PyAV reads the file, and a warning says so, once per reason and process.

Its colours may differ by rounding where it runs on another FFmpeg than PyAV does; larger differences count as others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from sightline.video.timeline import Timeline
from sightline.video.video_file import UnreadableClip, explained, open_video
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
        reason, begins = _first_frame(path, state.st_size, state.st_mtime_ns)
        video = None if reason else _open(path, taken.threads)
        if video is None or len(video) != len(timeline.times):
            return reason or "it counts other frames"
        for index in indices:  # one by one: large frames must not pile up
            frame = video.get_frame_at(index)
            # Counted from PyAV's first frame: what torchcodec takes for the first stamp may not be that of a frame.
            if abs(frame.pts_seconds - begins - timeline.times[index]) > _SAME_STAMP_S:
                return "its frames have other time stamps"
            taken.put(index, frame.data.numpy())
    except (RuntimeError, ValueError, IndexError, OSError):
        return "it cannot decode it"
    return ""


@lru_cache(maxsize=100_000)
def _first_frame(path: str, size: int, mtime_ns: int) -> tuple[str, float]:
    """What sets torchcodec's first frame of a file apart from PyAV's, empty if nothing does; when PyAV's begins."""
    first = WantedFrames({0}, None, 1)
    try:
        with open_video(path, 1) as (container, stream), explained(path, lambda: "no frame decoded"):
            frame = next(container.decode(stream))
            first.offer(0, frame)
    except (UnreadableClip, StopIteration):
        return "it is damaged", 0.0  # PyAV will say in which way
    a, b, c, d = display_matrix(frame)
    if a * d - b * c < 0:
        return "it does not mirror frames", 0.0
    if any(component.bits > 8 for component in frame.format.components):
        return "it converts colours of more than 8 bits in another way", 0.0
    its, expected = _open(path).get_frame_at(0).data.numpy(), first.frames[0]
    if its.shape != expected.shape:
        return "its frames have another size", 0.0
    if frame.time is None or np.abs(its.astype(np.int16) - expected).max() > _ROUNDING_LEVELS:
        return "its first frame differs", 0.0
    return "", frame.time


def _open(source: str | bytes, threads: int = 1) -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=threads, device="cpu")


def _say_once(reason: str, path: str) -> None:
    if reason not in _said:
        _said.add(reason)
        log.warning("PyAV reads %s, and others like it, instead of torchcodec: %s.", path, reason)
