"""Packets whose picture no other picture is made from, so that a decoder can do without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from av.packet import Packet

_SLICES = range(1, 6)  # NAL unit types that carry a picture
_EXTENSIONS = {14, 20, 21}  # further layers and views, where "no reference" means something else
_VOP = b"\0\0\1\xb6"  # begins an MPEG-4 picture; the two bits behind it are its type
_B_VOP = 2


def finder(codec: str, extradata: bytes | None) -> Callable[[Packet], bool]:
    """What says of a packet of this codec that it can be left out; of codecs not known here none can."""
    if codec == "h264":
        length_bytes = _length_size(extradata)
        return lambda packet: is_unreferenced_h264(memoryview(packet), length_bytes)
    if codec == "mpeg4":
        return lambda packet: is_unreferenced_mpeg4(bytes(packet))
    return lambda packet: False


def is_unreferenced_mpeg4(packet: bytes) -> bool:
    """Whether the packet is one B picture, which MPEG-4 (part 2) never makes others from."""
    vop = packet.find(_VOP)
    is_b = 0 <= vop < len(packet) - 4 and packet[vop + 4] >> 6 == _B_VOP
    return is_b and packet.find(_VOP, vop + 4) < 0  # some AVI files pack two pictures into a packet


def _length_size(extradata: bytes | None) -> int:
    """Bytes of the length before each NAL unit, 0 where start codes separate them (Annex B of the standard)."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else 0


def is_unreferenced_h264(packet: bytes | memoryview, length_bytes: int) -> bool:
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
