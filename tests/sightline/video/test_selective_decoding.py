import numpy as np
import pytest

from sightline.video import selective_decoding
from sightline.video import timeline as timeline_module
from sightline.video.decoding import read_frames
from sightline.video.sampling import uniform_indices
from sightline.video.selective_decoding import Run, plan
from sightline.video.timeline import Timeline
from sightline.video.unreferenced import is_unreferenced_h264, is_unreferenced_mpeg4
from tests.sightline.video.video_files import decode_all, numbered_frame, write_video


def timeline(positions, keys):
    """A timeline whose stamps are ten times the place in the order of display."""
    stamps = np.arange(len(positions)) * 10
    return Timeline(stamps / 10, float(len(stamps)), stamps=stamps, positions=np.array(positions), keys=np.array(keys))


def test_plan_jumps_only_where_that_leaves_packets_out():
    rising = timeline(range(12), [0, 40, 80])
    assert plan(rising, {1, 2}) == [Run(0, 2)]
    assert plan(rising, {1, 5, 11}) == [Run(0, 1), Run(4, 5), Run(8, 11)]
    # One key frame further back, the first two runs and the third meet: packets 0..5, then on to 11.
    assert plan(rising, {1, 5, 11}, back=1) == [Run(0, 11)]
    assert plan(timeline(range(12), []), {1}) == []


def test_plan_goes_on_to_the_packet_that_lies_last():
    # Shown 0 1 2 3, stored 0 3 1 2: frame 3's packet precedes frame 1's.
    assert plan(timeline([0, 2, 3, 1], [0]), {1, 3}) == [Run(0, 1)]
    assert plan(timeline([0, 2, 3, 1], [0]), {3}) == [Run(0, 3)]


def test_marks_of_unreferenced_pictures():
    def nal(header):
        return b"\0\0\0\2" + bytes([header, 7])

    assert is_unreferenced_h264(nal(0x06) + nal(0x01), 4)  # a message, then a slice with nal_ref_idc 0
    assert not is_unreferenced_h264(nal(0x41), 4)
    assert not is_unreferenced_h264(nal(0x01) + nal(0x21), 4)
    assert not is_unreferenced_h264(nal(0x06), 4)
    assert is_unreferenced_h264(b"\0\0\0\1\x09\x10\0\0\1\x01\x07", 0)
    assert not is_unreferenced_h264(b"\0\0\1\x01\x07\0\0\1\x61\x07", 0)
    p, b = b"\0\0\1\xb6\x40\0", b"\0\0\1\xb6\x80\0"
    assert [is_unreferenced_mpeg4(packet) for packet in (p, b, p + b, b"", b[:4])] == [False, True, False, False, False]


@pytest.mark.parametrize("gop", [5, 12, 40])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"codec": "libx264", "b_frames": 3}),
        ("a.mkv", {"codec": "libx264", "b_frames": 3}),
        ("a.avi", {"codec": "mpeg4", "b_frames": 2}),
    ],
)
def test_decodes_fewer_and_the_same(tmp_path, monkeypatch, gop, name, options):
    # Small still images give MPEG-4 packets so small that they would be taken for "no new frame".
    monkeypatch.setattr(timeline_module, "_EMPTY_MPEG4_BYTES", 0)
    images = [numbered_frame(number, 96, 64) for number in range(60)]
    path = write_video(tmp_path / name, images=images, gop=gop, **options)
    every = decode_all(path)
    decoded, original = [], selective_decoding._frames

    def counted(*args):
        for frame in original(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(selective_decoding, "_frames", counted)
    for wanted in (4, 16):
        decoded.clear()
        frames = read_frames(path, lambda times, end, wanted=wanted: uniform_indices(len(times), wanted))
        assert np.array_equal(frames, every[uniform_indices(60, wanted)])
        assert 0 < len(decoded) < 60
