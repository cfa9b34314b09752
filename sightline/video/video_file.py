"""Opening a video file, and saying in one line why that or reading on did not work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.video.stream import VideoStream


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


@contextmanager
def open_video(path: str, threads: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local video file at its main video stream; whatever happens it is closed again."""
    with explained(path, lambda: "the file cannot be opened"):
        # Only local files: a playlist posing as a video must not fetch others over the network.
        container = av.open(path, metadata_errors="ignore", options={"protocol_whitelist": "file"})
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            raise UnreadableClip(path, "expected a video, the file has no video stream that can be decoded")
        stream.codec_context.thread_count = threads
        yield container, stream


@contextmanager
def explained(path: str, progress: Callable[[], str]) -> Iterator[None]:
    """Turn FFmpeg's errors into UnreadableClip, with how far reading had come."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise UnreadableClip(path, f"{progress()}, then: {what}") from error
