"""Which H.264 packets a decoder can do without."""

from __future__ import annotations

from collections.abc import Iterator

_SLICES = range(1, 6)  # NAL unit types that carry a picture
_EXTENSIONS = {14, 20, 21}  # further layers and views, where "no reference" means something else


def length_size(extradata: bytes | None) -> int:
    """Bytes of the length before each NAL unit, 0 where start codes separate them (Annex B of the standard)."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else 0


def is_unreferenced(packet: bytes | memoryview, length_bytes: int) -> bool:
    """Whether the packet's picture is marked as no other picture's reference (nal_ref_idc 0 in all its slices).

    Pictures of this kind change nothing in the decoding of others: H.264 has them for leaving them out.
    """
    headers = list(_nal_headers(packet, length_bytes) if length_bytes else _annex_b_headers(bytes(packet)))
    slices = [header for header in headers if header & 31 in _SLICES]
    extended = any(header & 31 in _EXTENSIONS for header in headers)
    return bool(slices) and not extended and not any(header >> 5 & 3 for header in slices)


def _nal_headers(packet: bytes | memoryview, length_bytes: int) -> Iterator[int]:
    place = 0
    while place + length_bytes < len(packet):
        yield packet[place + length_bytes]
        place += length_bytes + int.from_bytes(packet[place : place + length_bytes], "big")


def _annex_b_headers(packet: bytes) -> Iterator[int]:
    place = packet.find(b"\0\0\1")
    while 0 <= place < len(packet) - 3:
        yield packet[place + 3]
        place = packet.find(b"\0\0\1", place + 3)
