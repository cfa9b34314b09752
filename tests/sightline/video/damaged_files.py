"""Files as cameras, interrupted copies and failing disks leave them, made from videos of our own."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import av
import numpy as np

from tests.sightline.video.video_files import truncate, write_video


def moving_scene(num_frames: int, width: int = 320, height: int = 240) -> list[np.ndarray]:
    """Frames of a texture that moves over another, with a camera's noise: predicted from one another, none still.

    Small pictures of still things would be coded in so few bits that a decoder reads wrong ones to the end without
    noticing.
    """
    chance = np.random.default_rng(0)
    back, front = (np.kron(chance.integers(0, 256, (n, n, 3)), np.ones((8, 8, 1))) for n in (56, 10))
    frames = []
    for number in range(num_frames):
        down, across = int(60 + 50 * np.cos(number / 13)), int(60 + 50 * np.sin(number / 9))
        frame = back[down : down + height, across : across + width].copy()
        down, across = int(70 + 60 * np.sin(number / 7)), int(100 + 90 * np.cos(number / 11))
        frame[down : down + 80, across : across + 80] = front
        frames.append(np.clip(frame + chance.normal(0, 3, frame.shape), 0, 255).astype(np.uint8))
    return frames


def change_bytes(path: Path, source: Path, count: int, seed: int) -> Path:
    """Write a copy of a file in which so many bytes at random places have random values."""
    chance = random.Random(seed)
    content = bytearray(source.read_bytes())
    for _ in range(count):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(bytes(content))
    return path


def without_key_frames(path: Path, source: Path) -> Path:
    """Copy a video's packets but for all key frames after the first."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.size and not (number and packet.is_keyframe):
                packet.stream = stream
                container.mux(packet)
    return path


def from_key_frame(path: Path, source: Path, number: int) -> Path:
    """Copy a video's packets from one of its key frames on, as cutting without encoding does."""
    keys, shift = -1, None
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            keys += packet.is_keyframe
            if packet.dts is None or packet.pts is None or keys < number:
                continue
            shift = packet.dts if shift is None else shift
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            container.mux(packet)
    return path


def cut_fragments(path: Path, images: list[np.ndarray]) -> Path:
    """Write a fragmented MP4, whose header tells nothing of its length, and cut it."""
    return truncate(write_video(path, images=images, codec="libx264", movflags="frag_keyframe+empty_moov"), 0.6)


def write_mjpeg_with_exif(path: Path, images: list[np.ndarray], orientation: int) -> Path:
    """Write JPEGs with EXIF, as cameras do, into a container; ``orientation`` is EXIF's, 1 to 8."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            for packet in stream.encode(frame):
                content = bytes(packet)
                with_exif = av.Packet(content[:2] + segment + content[2:])
                with_exif.stream, with_exif.time_base = stream, packet.time_base
                with_exif.pts, with_exif.dts, with_exif.is_keyframe = packet.pts, packet.dts, True
                container.mux(with_exif)
    return path
