"""Which frames that a decoder gives are damaged, or made from damaged ones.

Where data are wrong a decoder goes on: it fills what it could not decode from other frames, gives the frame, and marks
it. Frames that are made from it show the same, and are not marked. Which these are depends on the codec's pictures;
here it is said on the safe side, in the order of display: all up to the next key frame, and the B pictures just before,
since these come later in the file. Of a picture that no other is made from (`unreferenced`) only itself is damaged.
"""

from __future__ import annotations

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from sightline.video.unreferenced import finder

_B_NEVER_REFERENCED = {"mpeg4", "mpeg1video", "mpeg2video"}
_LISTED = 4


class Damage:
    """What a decoder's frames, looked at one after the other in the order of display, tell of damage."""

    def __init__(self, decoder: VideoCodecContext) -> None:
        codec = decoder.codec.canonical_name
        self._b_never_referenced = codec in _B_NEVER_REFERENCED
        self._is_unreferenced = finder(codec, decoder.extradata)
        self._unreferenced: set[int] = set()  # stamps
        self._is_b: list[bool] = []
        self._begins: list[int] = []
        self._marked: list[tuple[int, bool]] = []  # and whether others may be made from it

    def sent(self, packet: Packet) -> None:
        """Look at a packet that the decoder is about to get."""
        # Where frames say it themselves, packets need not be searched, which may have no stamps either.
        if not self._b_never_referenced and packet.pts is not None and self._is_unreferenced(packet):
            self._unreferenced.add(packet.pts)

    def came(self, frame: VideoFrame) -> None:
        """Look at a frame that the decoder gave."""
        index, is_b = len(self._is_b), frame.pict_type == PictureType.B
        self._is_b.append(is_b)
        if frame.key_frame and frame.pict_type == PictureType.I:
            self._begins.append(index)
        if frame.is_corrupt:
            alone = is_b if self._b_never_referenced else frame.pts in self._unreferenced
            self._marked.append((index, not alone))

    def frames(self) -> set[int]:
        """The frames that are marked or made from marked ones, counted in the order of display."""
        found: set[int] = set()
        reaches = 0
        for index, spreads in self._marked:
            found.add(index)
            if not spreads:
                continue
            if index >= reaches:
                reaches = next((begin for begin in self._begins if begin > index), len(self._is_b))
                found.update(range(index, reaches))
            before = index - 1
            while before >= 0 and self._is_b[before]:
                found.add(before)
                before -= 1
        return found

    def reason(self, concerned: int, read: int) -> str:
        """Say in one line what is damaged, and how many of the frames read that concerns."""
        marked = [str(index) for index, _ in self._marked]
        more = [f"{len(marked) - _LISTED} more"] if len(marked) > _LISTED else []
        return (
            f"damaged: errors were hidden in frame(s) {', '.join(marked[:_LISTED] + more)}, which concerns {concerned} "
            f"of the {read} frames read"
        )
