"""Small videos for tests, whose every frame carries its number so that it can be recognised after compression."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

VOP = b"\0\0\1\xb6"  # begins an MPEG-4 picture
EMPTY_VOP = VOP + b"\x51\xcf"  # a P picture that says: not coded

BITS = 6  # numbers up to 63, as 3 x 2 black or white blocks


def numbered_frame(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """An RGB image of ``number``: its bits as blocks, three in a row, the lowest bit first."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], dtype=np.uint8).reshape(2, 3) * 255
    rows = np.arange(height) * 2 // height
    columns = np.arange(width) * 3 // width
    return np.repeat(bits[rows][:, columns, None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number that an RGB image (H, W, 3) of `numbered_frame` shows."""
    height, width = frame.shape[:2]
    middles = frame[[height // 4, 3 * height // 4]][:, [width // 6, width // 2, 5 * width // 6]].mean(-1)
    return sum(int(value > 127) << bit for bit, value in enumerate(middles.ravel()))


def numbers_of(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


def write_video(
    path: Path,
    num_frames: int = 40,
    width: int = 64,
    height: int = 48,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    fps: int = 25,
    b_frames: int = 0,
    gop: int = 12,
    images: list[np.ndarray] | None = None,
    stamps: Sequence[int] | None = None,
    encoder: Mapping[str, str] | None = None,
    **container_options: str,
) -> Path:
    """Write a video of numbered frames (or of ``images``); the suffix of ``path`` decides the container.

    Frames are shown at ``stamps``, counted in 1 / fps; by default one after the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    images = images or [numbered_frame(number, width, height) for number in range(num_frames)]
    with av.open(str(path), "w", options=container_options) as container:
        options = {"bf": str(b_frames), "g": str(gop), "threads": "1", **(encoder or {})}
        if codec == "libx264":
            options["mbtree"] = "0"  # it reads memory that nobody wrote: files would differ from time to time
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = images[0].shape[1], images[0].shape[0]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, fps)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_packed_avi(path: Path, images: list[np.ndarray], b_frames: int) -> Path:
    """Write MPEG-4 as DivX and XviD pack it into AVI: a P and its first B picture in one packet, an empty one later."""
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.options = {"bf": str(b_frames), "g": "12", "b_strategy": "0", "sc_threshold": "1000000000"}
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    pictures: list[bytes] = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        pictures += map(bytes, encoder.encode(frame))
    pictures += map(bytes, encoder.encode(None))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, content in enumerate(_packed(pictures)):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), number, number
            packet.is_keyframe = _vop_type(content) == "I"
            container.mux(packet)
    return path


def _vop_type(picture: bytes) -> str:
    return "IPBS"[picture[picture.index(VOP) + len(VOP)] >> 6]


def _packed(pictures: list[bytes]) -> list[bytes]:
    """Packets of the pictures, which are in the order of decoding; as many packets as pictures."""
    packets: list[bytes] = []
    empty_due = False
    for picture in pictures:
        if _vop_type(picture) == "I":
            picture = picture.replace(VOP, b"\0\0\1\xb2DivX503b1393p" + VOP, 1)  # the "p" says: packed
        if _vop_type(picture) != "B":
            packets += [EMPTY_VOP] * empty_due
            packets.append(picture)
            empty_due = False
        elif not empty_due:
            packets[-1] += picture
            empty_due = True
        else:
            packets.append(picture)
    return packets + [EMPTY_VOP] * empty_due


def write_audio(path: Path) -> Path:
    """Write an MP4 with a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1000):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> np.ndarray:
    """Every frame in the simplest way."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def truncate(path: Path, fraction: float) -> Path:
    """Cut a file short, as an interrupted copy does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Say in the header of an MP4 that a pixel at (x, y) is shown at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    return path
