import gc
import os
import sys
import tracemalloc

import av
import numpy as np
import pytest

from sightline.video import decoding
from sightline.video.decoding import UnreadableClip, read_frames
from sightline.video.sampling import uniform_indices
from sightline.video.timeline import Timeline
from tests.sightline.video.video_files import (
    decode_all,
    numbered_frame,
    numbers_of,
    set_display_matrix,
    truncate,
    write_audio,
    write_video,
)

KINDS = {
    "mpeg4.avi": {},
    "mpeg4_b_frames.avi": {"b_frames": 2},
    "h264.mp4": {"codec": "libx264"},
    "h264_b_frames.mp4": {"codec": "libx264", "b_frames": 3},
    "h264_b_frames.avi": {"codec": "libx264", "b_frames": 3},
    "no_count.mkv": {"codec": "libx264", "b_frames": 2},
    "no_duration.mkv": {"codec": "mpeg4", "live": "1"},
    "no_container.h264": {"codec": "libx264", "b_frames": 2},
    "odd_size.mp4": {"codec": "libx264", "pixels": "yuv444p", "width": 67, "height": 45},
    "gray.mkv": {"codec": "ffv1", "pixels": "gray"},
    "ten_bits.mkv": {"codec": "ffv1", "pixels": "yuv420p10le"},
    "full_range.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


def write(folder, kind, **changes):
    return write_video(folder / kind, **{**KINDS[kind], **changes})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [16, 5])
def test_same_frames_as_decoding_all(tmp_path, kind, wanted):
    path = write(tmp_path, kind)
    every = decode_all(path)
    frames = read_frames(path, lambda times, end: uniform_indices(len(times), wanted))
    assert frames.dtype == np.uint8
    assert numbers_of(frames) == uniform_indices(40, wanted)
    assert np.array_equal(frames, every[uniform_indices(40, wanted)])


@pytest.mark.parametrize("kind", KINDS)
def test_part_between_two_times(tmp_path, kind):
    # At 25 frames per second frames 10..19 are shown at 0.40, 0.44 ... 0.76 s.
    path = write(tmp_path, kind)
    counts = []
    frames = read_frames(path, lambda times, end: counts.append(len(times)) or range(len(times)), start=0.4, end=0.8)
    assert numbers_of(frames) == list(range(10, 20))
    assert counts == [10]
    assert numbers_of(read_frames(path, [0, -1 + 10], start=1.2)) == [30, 39]
    assert numbers_of(read_frames(path, [0, 4], end=0.2)) == [0, 4]


def test_part_shorter_than_a_frame_is_the_frame_shown_then(tmp_path):
    path = write(tmp_path, "h264.mp4")
    assert numbers_of(read_frames(path, lambda times, end: range(len(times)), start=0.41, end=0.43)) == [10]


def test_part_may_end_a_little_behind_the_video_but_not_far(tmp_path):
    path = write(tmp_path, "h264.mp4")
    assert numbers_of(read_frames(path, lambda times, end: range(len(times)), start=1.5, end=2.0)) == [38, 39]
    with pytest.raises(UnreadableClip, match=r"until 5 s, the video ends at 1\.60 s"):
        read_frames(path, [0], start=1.5, end=5.0)
    with pytest.raises(UnreadableClip, match=r"from 3 s on, the video ends at 1\.60 s"):
        read_frames(path, [0], start=3.0, end=3.5)


@pytest.mark.parametrize("kind", KINDS)
def test_part_between_two_frames(tmp_path, kind):
    path = write(tmp_path, kind)
    counts = []
    frames = read_frames(path, lambda times, end: counts.append(len(times)) or range(len(times)), frame_range=(10, 20))
    assert numbers_of(frames) == list(range(10, 20))
    assert counts == [10]
    assert numbers_of(read_frames(path, [0, 9, 3], frame_range=(30, 40))) == [30, 39, 33]


@pytest.mark.parametrize("wrong", [(30, 41), (40, 41), (-1, 3), (5, 5)])
def test_part_beyond_the_frames(tmp_path, wrong):
    path = write(tmp_path, "h264.mp4")
    with pytest.raises(UnreadableClip, match=rf"expected frames {wrong[0]}\.\.{wrong[1] - 1}, found 40 frames"):
        read_frames(path, [0], frame_range=wrong)


def test_part_in_seconds_or_in_frames(tmp_path):
    with pytest.raises(ValueError, match="start and end, or frame_range"):
        read_frames(write(tmp_path, "h264.mp4"), [0], start=0.4, frame_range=(10, 20))


def test_short_clip_repeats_frames(tmp_path):
    path = write(tmp_path, "mpeg4.avi", num_frames=3)
    assert numbers_of(read_frames(path, lambda times, end: uniform_indices(len(times), 6))) == [0, 0, 1, 1, 2, 2]


def test_indices_out_of_range(tmp_path):
    path = write(tmp_path, "mpeg4.avi")
    with pytest.raises(UnreadableClip, match=r"\[3, 40\] to be among 0\.\.39"):
        read_frames(path, [3, 40])


# ---------------------------------------------------------------- counts that are wrong


def test_header_with_too_few_frames(tmp_path):
    path = write(tmp_path, "mpeg4.avi")
    content = path.read_bytes().replace((40).to_bytes(4, "little"), (30).to_bytes(4, "little"))
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 30
    assert len(read_frames(path, range(40))) == 40


@pytest.mark.parametrize("promised", [37, 43])
def test_packets_that_are_not_frames(tmp_path, monkeypatch, promised):
    path = write(tmp_path, "mpeg4.avi")
    monkeypatch.setattr(decoding, "count_packets", lambda *_: Timeline(np.arange(promised) / 25, promised / 25))
    frames = read_frames(path, lambda times, end: uniform_indices(len(times), 16))
    assert numbers_of(frames) == uniform_indices(40, 16)


# ---------------------------------------------------------------- files that cannot be read


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mpeg4.avi", {}),
        ("mpeg4_b_frames.avi", {}),
        ("h264_b_frames.mp4", {"movflags": "faststart"}),
        ("no_count.mkv", {"cues_to_front": "1"}),
    ],
)
def test_truncated(tmp_path, kind, options):
    images = [numbered_frame(i % 50, 160, 120) for i in range(100)]
    path = truncate(write(tmp_path, kind, images=images, **options), 0.6)
    with pytest.raises(UnreadableClip, match=r"truncated: expected \d+ frames, the file holds \d+") as caught:
        read_frames(path, lambda times, end: uniform_indices(len(times), 4))
    assert caught.value.path == str(path)
    # What lies well before the cut is still there.
    assert numbers_of(read_frames(path, range(5), start=0.4, end=0.6)) == list(range(10, 15))


def test_truncated_before_the_index(tmp_path):
    path = truncate(write(tmp_path, "h264.mp4"), 0.6)
    with pytest.raises(UnreadableClip, match="cannot be opened"):
        read_frames(path, [0])


def test_damaged_in_the_middle(tmp_path):
    path = write(tmp_path, "h264.mp4", movflags="faststart")
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + len(content) // 5] = bytes(len(content) // 5)
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableClip, match=r"expected 40 frames, \d+ decoded, then: Invalid data"):
        read_frames(path, lambda times, end: uniform_indices(len(times), 16))
    # What is not made from the damaged part can still be had.
    assert numbers_of(read_frames(path, [0])) == [0]


@pytest.mark.parametrize("content", [b"", b"This is a letter, not a video.\n" * 100])
def test_not_a_video(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableClip, match="cannot be opened"):
        read_frames(path, [0])


def test_no_picture(tmp_path):
    with pytest.raises(UnreadableClip, match="no video stream"):
        read_frames(write_audio(tmp_path / "sound.mp4"), [0])


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UnreadableClip, match="No such file"):
        read_frames(tmp_path / "absent.mp4", [0])
    with pytest.raises(UnreadableClip, match="cannot be opened"):
        read_frames(tmp_path, [0])


def test_playlist_is_not_followed(tmp_path):
    path = tmp_path / "clip.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnreadableClip):
        read_frames(path, [0])


def test_error_survives_a_worker(tmp_path):
    import pickle

    error = pickle.loads(pickle.dumps(UnreadableClip("a.avi", "why")))
    assert (error.path, error.reason, str(error)) == ("a.avi", "why", "a.avi: why")


# ---------------------------------------------------------------- orientation


UPRIGHT = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
ACROSS = [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize(("a", "b", "c", "d"), UPRIGHT + ACROSS)
def test_all_eight_display_matrices(tmp_path, a, b, c, d):
    path = write(tmp_path, "h264.mp4", num_frames=1, images=[numbered_frame(0b001011, 64, 48)])
    stored = decode_all(path)[0]
    shown = read_frames(set_display_matrix(path, a, b, c, d), [0])[0]
    height, width = stored.shape[:2]
    # Pixel by pixel: where (x, y) goes, moved so that the least place is 0.
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.zeros((abs(b) * width + abs(d) * height, abs(a) * width + abs(c) * height, 3), dtype=np.uint8)
    expected[to_y - to_y.min(), to_x - to_x.min()] = stored
    assert np.array_equal(shown, expected)


# ---------------------------------------------------------------- resources


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files in /proc")
def test_containers_are_closed(tmp_path):
    good = write(tmp_path, "mpeg4.avi")
    bad = truncate(write(tmp_path, "mpeg4_b_frames.avi"), 0.5)
    before = open_files()
    for _ in range(3):
        read_frames(good, [0], end=0.1)
        for path in (bad, tmp_path / "absent.avi"):
            with pytest.raises(UnreadableClip):
                read_frames(path, [0])
    assert open_files() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
@pytest.mark.parametrize("kind", ["mpeg4.avi", "h264_b_frames.mp4"])
def test_no_thread_is_left_behind(tmp_path, kind):
    # Forked loader workers hang on threads of PyAV objects that wait for the garbage collector in the parent.
    path = write(tmp_path, kind)
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/task"))
        read_frames(path, range(40))
        assert len(os.listdir("/proc/self/task")) == before
    finally:
        gc.enable()


def test_memory_does_not_grow_with_the_video(tmp_path):
    images = [numbered_frame(i % 64, 320, 240) for i in range(150)]
    path = write(tmp_path, "mpeg4.avi", images=images)
    one_frame = 320 * 240 * 3
    tracemalloc.start()
    frames = read_frames(path, lambda times, end: range(len(times)), convert=lambda frame: frame[::60, ::60].copy())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames.shape == (150, 4, 6, 3)
    assert peak < 5 * one_frame  # 150 frames would be 150
