"""Opening a video file, and saying in one line why that or reading on did not work."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import av
from av.container import InputContainer
from av.video.stream import VideoStream

Item = TypeVar("Item")

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
)


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


class DamagedClip(UnreadableClip):
    """A clip whose file gives frames, but frames in which the decoder hid errors."""


def require_regular_file(path: str) -> None:
    """See to it that a path leads to a file: opening a pipe waits until somebody writes into it.

    Raises:
        UnreadableClip: Where there is nothing, or something else.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise UnreadableClip(path, f"the file cannot be opened, then: {_cause(error)}") from error
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise UnreadableClip(path, f"the file cannot be opened: expected a regular file, got {kind}")


@contextmanager
def open_video(path: str, threads: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local video file at its main video stream; whatever happens it is closed again.

    Raises:
        UnreadableClip: Where it is no regular file, cannot be opened, or holds no video.
    """
    require_regular_file(path)
    with explained(path, lambda: "the file cannot be opened"):
        # Only local files: a playlist posing as a video must not fetch others over the network.
        container = av.open(path, metadata_errors="ignore", options={"protocol_whitelist": "file"})
    with container:
        with explained(path, lambda: "the file was opened"):
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream) or stream.codec_context is None:
                raise UnreadableClip(path, "expected a video, the file has no video stream that can be decoded")
            stream.codec_context.thread_count = threads
        yield container, stream


@contextmanager
def explained(path: str, progress: Callable[[], str]) -> Iterator[None]:
    """Turn whatever PyAV raises into UnreadableClip, with how far reading had come.

    What FFmpeg and PyAV raise on the files of this world is not a closed list (side data of a type that PyAV does not
    know is a ValueError), and none of it may end more than one clip. So nothing but calls of PyAV belongs inside.
    """
    try:
        yield
    except UnreadableClip:
        raise
    except Exception as error:
        raise UnreadableClip(path, f"{progress()}, then: {_cause(error)}") from error


def each_explained(items: Iterable[Item], path: str, progress: Callable[[], str]) -> Iterator[Item]:
    """Yield what PyAV yields; `explained` holds for getting the items, not for what is done with them."""
    with explained(path, progress):
        yield from items


def _cause(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__)
