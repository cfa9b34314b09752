"""Ways of coding and packing that real collections hold and decoders stumble over, each on a small file of its own."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from sightline.video.decoding import read_frames
from sightline.video.sampling import segment_frames, uniform_indices
from tests.sightline.video.video_files import (
    decode_all,
    numbered_frame,
    numbers_of,
    set_display_matrix,
    write_packed_avi,
    write_video,
)

COUNT = 41
X264_OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0"}
X265_OPEN = {"x265-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:pools=1:log-level=none"}
KINDS = {
    "open_gop.mp4": {"codec": "libx264", "b_frames": 3, "encoder": X264_OPEN},
    "open_gop.mkv": {"codec": "libx264", "b_frames": 3, "encoder": X264_OPEN},
    "open_gop.ts": {"codec": "libx264", "b_frames": 3, "encoder": X264_OPEN},
    "open_gop_hevc.mp4": {"codec": "libx265", "b_frames": 3, "encoder": X265_OPEN},
    "ten_bits.mp4": {"codec": "libx264", "pixels": "yuv420p10le", "b_frames": 2},
    "gray.mp4": {"codec": "libx264", "pixels": "gray", "b_frames": 2},
    "odd_size.avi": {"codec": "mpeg4", "b_frames": 2, "width": 67, "height": 45},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "hidden_frames.webm": {"codec": "libvpx-vp9", "encoder": {"lag-in-frames": "16", "auto-alt-ref": "1"}},
    "sorenson.flv": {"codec": "flv"},
    "single_key_frame.mp4": {"codec": "libx264", "b_frames": 3, "gop": 250},
}


def still_images(width=96, height=64):
    return [numbered_frame(number, width, height) for number in range(COUNT)]


def write(folder, kind):
    options = dict(KINDS[kind])
    images = still_images(options.pop("width", 96), options.pop("height", 64))
    try:
        return write_video(folder / kind, images=images, **options)
    except av.error.EncoderNotFoundError:
        pytest.skip(f"this FFmpeg has no encoder {options['codec']}")


def assert_same_as_decoding_all(path):
    every = decode_all(path)
    assert numbers_of(every) == list(range(COUNT))
    for choice in (uniform_indices(COUNT, 16), [0], [COUNT - 1], [13], [11, 12, 36], range(COUNT)):
        assert np.array_equal(read_frames(path, list(choice)), every[list(choice)]), choice
    for first in range(0, COUNT - 4, 3):
        part = read_frames(path, [0, 3], frame_range=(first, first + 4))
        assert np.array_equal(part, every[[first, first + 3]]), first


@pytest.mark.parametrize("kind", KINDS)
def test_same_frames_as_decoding_all(tmp_path, kind):
    assert_same_as_decoding_all(write(tmp_path, kind))


def test_open_gops_are_open(tmp_path):
    # Else the cases above would show nothing: behind a key frame in the file lie frames that are shown before it.
    with av.open(str(write(tmp_path, "open_gop.mp4"))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    second_key = [index for index, packet in enumerate(packets) if packet.is_keyframe][1]
    assert packets[second_key + 1].pts < packets[second_key].pts


@pytest.mark.parametrize("b_frames", [1, 2])
def test_packed_b_frames(tmp_path, b_frames):
    path = write_packed_avi(tmp_path / "packed.avi", still_images(), b_frames)
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    assert sizes.count(6) > 10  # the empty pictures
    assert_same_as_decoding_all(path)


def test_variable_frame_rate_is_sampled_by_time(tmp_path):
    # Ten frames of 0.1 s, then thirty of 0.01 s: 1.3 s. Taken are those shown at (i + 1/2) * 0.26 s: at 0.13, 0.39,
    # 0.65, 0.91 s frames 1, 3, 6, 9, and at 1.17 s, 0.17 s behind the first short frame, number 10 + 17.
    stamps = [*range(0, 100, 10), *range(100, 130)]
    images = [numbered_frame(number, 96, 64) for number in range(40)]
    for name, codec in (("vfr.mp4", "libx264"), ("vfr.mkv", "libx264")):
        path = write_video(tmp_path / name, images=images, codec=codec, b_frames=2, fps=100, stamps=stamps)
        frames = read_frames(path, lambda times, end: segment_frames(times, end, wanted=5, offset=0.5))
        assert numbers_of(frames) == [1, 3, 6, 9, 27], name
        # From 0.45 to 1.05 s: frames 5..9 begin at 0.5 ... 0.9 s, then 10..14.
        part = read_frames(path, lambda times, end: range(len(times)), start=0.45, end=1.05)
        assert numbers_of(part) == list(range(5, 15)), name


@pytest.mark.parametrize(("matrix", "quarter_turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotation_when_only_a_part_is_decoded(tmp_path, matrix, quarter_turns):
    path = set_display_matrix(write(tmp_path, "open_gop.mp4"), *matrix)
    expected = np.rot90(decode_all(path), quarter_turns, axes=(1, 2))
    frames = read_frames(path, [0, 3], frame_range=(30, 34))
    assert np.array_equal(frames, expected[[30, 33]])


def test_of_several_video_streams_one(tmp_path):
    # FFmpeg's choice, here the one marked as the default; not the first, and never a mixture.
    path = tmp_path / "two_streams.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25, options={"g": "12"}) for _ in range(2)]
        for stream, (width, height) in zip(streams, [(64, 48), (128, 96)], strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 25)
        streams[1].disposition = Disposition.default
        for number in range(20):
            for stream, shown in zip(streams, (63 - number, number), strict=True):
                frame = av.VideoFrame.from_ndarray(numbered_frame(shown, stream.width, stream.height), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    frames = read_frames(path, [0, 4], frame_range=(14, 20))
    assert frames.shape == (2, 96, 128, 3)
    assert numbers_of(frames) == [14, 18]
