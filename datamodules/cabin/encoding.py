"""Write frames as video files whose content is known to the last bit, and tell what is in such a file.

H.264 is written without loss, so a file holds exactly the luma that was handed to the encoder, whatever the encoder
does. With loss the picture depends on the encoder's decisions, and x264 takes some from memory that it never wrote
(valgrind finds it with frames of 72 x 72 and of 80 x 80), so that now and then a file came out differently by a few
levels. The luma is computed here instead of by FFmpeg's converter, and every file is read back.

Every file states the digest of the frames before encoding; `intact_digest` compares it with the frames it decodes to.

This module imports neither torch nor Lightning.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from sightline.run.atomic import replacing

_MARK = "rendered "
# Luma of video goes from 16 to 235 (ITU-R BT.601, section 2.5.3); grey has no colour, which 128 stands for.
_BLACK, _SPAN, _NO_COLOUR = 16, 219, 128
_LUMA = np.rint(_BLACK + np.arange(256) * (_SPAN / 255)).astype(np.uint8)


def digest(luma: NDArray[np.uint8]) -> str:
    """Return 16 hexadecimal digits that tell luma planes (T, H, W) from others."""
    content = hashlib.sha256(repr(luma.shape).encode())
    content.update(np.ascontiguousarray(luma).tobytes())
    return content.hexdigest()[:16]


def write_video(path: Path, grey: NDArray[np.uint8], fps: float) -> tuple[str, str]:
    """Write grey frames (T, H, W) as lossless H.264; the file has its name only once it is whole and was read back.

    Args:
        path: Where to; the folder is made.
        grey: The frames; height and width are even.
        fps: Frames per second that the file states.

    Returns:
        The digests of the frames before encoding and of those that the finished file decodes to; they are equal.

    Raises:
        RuntimeError: Where the finished file decodes to other frames.
    """
    luma = _LUMA[grey]
    wanted = digest(luma)
    with replacing(path) as part:
        _encode(part, luma, fps, wanted)
        if (found := intact_digest(part)) != wanted:
            raise RuntimeError(
                f"Expected {path.name} to decode to the frames it was written from (digest {wanted}), got "
                f"{found or 'others'} with PyAV {av.__version__}. This build of FFmpeg does not write H.264 without "
                "loss; install the version of PyAV that requirements.lock names."
            )
    return wanted, found


def _encode(path: Path, luma: NDArray[np.uint8], fps: float, mark: str) -> None:
    # A key frame every second keeps seeking cheap; without B-frames the first time stamp is exactly 0. The fast preset
    # codes without arithmetic coding, which halves the time that decoding takes.
    options = {"preset": "ultrafast", "qp": "0", "bf": "0"}
    colour = np.full((luma.shape[1] // 2, luma.shape[2]), _NO_COLOUR, dtype=np.uint8)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = _MARK + mark
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = luma.shape[1:]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = max(1, round(fps))
        stream.codec_context.thread_count = 1
        for plane in luma:
            # Two planes of half the height and width lie below the luma; both are the same everywhere.
            frame = av.VideoFrame.from_ndarray(np.concatenate([plane, colour]), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def intact_digest(path: Path) -> str | None:
    """Return the digest of a file's frames, or None where it is not the one that the file states, or cannot be read."""
    try:
        with av.open(str(path)) as container:
            stated = container.metadata.get("comment", "")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            planes = [_luma(frame) for frame in container.decode(stream)]
    except (av.error.FFmpegError, IndexError, OSError):
        return None
    found = digest(np.stack(planes)) if planes else ""
    return found if stated == _MARK + found else None


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return lines[: frame.height, : frame.width].copy()
