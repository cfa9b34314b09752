"""Sampled and resized frames of clips, kept on disk so that reading them again needs no decoding.

An entry is named by a digest of everything its frames follow from: the video file's content, the part of it, the
settings and the versions of what decodes and resizes. So nothing in the cache is ever out of date.

Entries are written under another name and renamed: processes may share a folder and be killed at any time. There is no
fsync: what a power failure leaves behind does not match its checksum, is taken for absent, and is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sightline.run.atomic import replacing
from sightline.run.unfinished import is_unfinished

log = logging.getLogger(__name__)

_VERSION = b"frames01"
_HEADER = struct.Struct("<8sI4I")  # version, checksum, shape (T, H, W, 3)
_SUFFIX = ".frames"
_SCAN_SHARE = 64  # the folder is measured again after each such part of its limit that a process has written
_KEEP = 0.9  # share of the limit that is left when entries are deleted


class FrameCache:
    """Arrays of frames in a folder, the least recently used of which are deleted when it grows too large.

    The limit is kept roughly: each process may exceed it by a 64th part before it looks again.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._written: int | None = None  # since the folder was last measured
        self._failed = False

    def key(self, path: str, **what: Any) -> str | None:
        """The name of an entry, given the file and all that its frames depend on; None where there is no file."""
        try:
            state = os.stat(path)
            if not stat.S_ISREG(state.st_mode):
                return None  # to open a pipe would be to wait for its content
            digest = self._digest(os.path.realpath(path), state.st_size, state.st_mtime_ns)
        except OSError:
            return None
        return hashlib.sha256(json.dumps([digest, what], sort_keys=True).encode()).hexdigest()

    def read(self, key: str) -> np.ndarray | None:
        """The frames (T, H, W, 3), or None where there are none that are whole."""
        path = self._path(key)
        try:
            content = np.fromfile(path, dtype=np.uint8)
        except OSError:
            return None
        frames = _unpacked(content)
        if frames is None:
            log.warning("Entry %s of the frame cache is damaged and will be written again.", path)
        else:
            with contextlib.suppress(OSError):  # deleted in the meantime
                os.utime(path)  # the time of last use, which file systems seldom keep by themselves
        return frames

    def write(self, key: str, frames: np.ndarray) -> None:
        """Keep the frames; where the folder cannot be written, say so once and go on."""
        frames = np.ascontiguousarray(frames)
        header = _HEADER.pack(_VERSION, zlib.crc32(frames.data), *frames.shape)
        try:
            _write_whole(self._path(key), header, frames.data)
            self._limit(_HEADER.size + frames.nbytes)
        except OSError as error:
            if not self._failed:
                log.warning("The frame cache %s cannot be written, going on without: %s", self.folder, error)
            self._failed = True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"  # 256 folders: some file systems are slow with large ones

    def _digest(self, path: str, size: int, mtime_ns: int) -> str:
        """The digest of a file's content, remembered as long as its size and time of change stay."""
        name = hashlib.sha256(f"{path}\0{size}\0{mtime_ns}".encode()).hexdigest()
        return _remembered_digest(path, self.folder / "digests" / name)

    def _limit(self, written: int) -> None:
        """Delete the entries not used for longest, if there may be too many."""
        self._written = None if self._written is None else self._written + written
        if self._written is not None and self._written < self.max_bytes // _SCAN_SHARE:
            return
        self._written = 0
        entries = []
        for path in self.folder.glob(f"??/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process deletes too
                state = path.stat()
                if not is_unfinished(path.name):
                    entries.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in entries)
        if total <= self.max_bytes:
            return
        for _, size, path in sorted(entries):
            path.unlink(missing_ok=True)
            total -= size
            if total <= _KEEP * self.max_bytes:
                break


@lru_cache(maxsize=100_000)
def _remembered_digest(path: str, record: Path) -> str:
    with contextlib.suppress(OSError):
        return record.read_text()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a folder that cannot be written is complained about where frames are
        _write_whole(record, digest.encode())
    return digest


def _write_whole(path: Path, *parts: bytes | memoryview) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)


def _unpacked(content: np.ndarray) -> np.ndarray | None:
    if len(content) < _HEADER.size:
        return None
    version, checksum, *shape = _HEADER.unpack(content[: _HEADER.size].tobytes())
    frames = content[_HEADER.size :]
    if version != _VERSION or len(frames) != np.prod(shape, dtype=np.int64) or zlib.crc32(frames.data) != checksum:
        return None
    return frames.reshape(shape)
