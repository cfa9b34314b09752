"""What lies where videos are expected: files that show a part of what they hold, broken ones, and no files at all."""

import os
import socket
import sys

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from sightline.video import video_file
from sightline.video.decoding import DamagedClip, UnreadableClip, read_frames
from sightline.video.frame_cache import FrameCache
from sightline.video.sampling import segment_frames
from sightline.video.sources import VideoFile
from tests.sightline.video.damaged_files import (
    cut_fragments,
    from_key_frame,
    moving_scene,
    without_key_frames,
    write_mjpeg_with_exif,
)
from tests.sightline.video.video_files import decode_all, numbered_frame, numbers_of, write_video

MATRICES = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0), (0, -1, 1, 0)]  # fmt: skip # noqa: E501


def everything(times, end):
    return range(len(times))


def chosen(times, end):
    return segment_frames(times, end, 16, 0.5)


# ---------------------------------------------------------------- whole, and to be read


@pytest.mark.parametrize("b_frames", [0, 2])
def test_an_edit_list_that_begins_later(tmp_path, b_frames):
    path = write_video(
        tmp_path / "a.mp4", 60, codec="libx264", b_frames=b_frames, stamps=range(-30, 30), avoid_negative_ts="disabled"
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 60
    frames = read_frames(path, everything)
    assert numbers_of(frames) == list(range(30, 60))
    assert np.array_equal(frames, decode_all(path))
    assert numbers_of(read_frames(path, everything, frame_range=(10, 13))) == [40, 41, 42]
    assert numbers_of(read_frames(path, everything, start=0.4, end=0.52)) == [40, 41, 42]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_a_stream_cut_out_of_a_longer_one(tmp_path, name):
    # Open groups: what is shown before the first key frame is made from frames that are not there any more.
    encoder = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0"}
    images = [numbered_frame(number, 96, 64) for number in range(60)]
    whole = write_video(tmp_path / f"whole_{name}", images=images, codec="libx264", b_frames=3, encoder=encoder)
    path = from_key_frame(tmp_path / name, whole, 2)
    frames = read_frames(path, everything, every_frame=True)
    assert numbers_of(frames) == list(range(24, 60))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_that_carry_exif(tmp_path, orientation):
    image = numbered_frame(0b001011, 64, 48)
    path = write_mjpeg_with_exif(tmp_path / "a.avi", [image] * 3, orientation)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        stored = VideoReformatter().reformat(frame, format="rgb24").to_ndarray()
    a, b, c, d = MATRICES[orientation - 1]
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.zeros((np.ptp(to_y) + 1, np.ptp(to_x) + 1, 3), dtype=np.uint8)
    expected[to_y - to_y.min(), to_x - to_x.min()] = stored
    assert np.array_equal(read_frames(path, [0])[0], expected)


def test_a_slide_show_has_no_gap(tmp_path):
    stamps = [15 * 25 * number for number in range(8)]
    path = write_video(tmp_path / "a.mp4", 8, codec="libx264", stamps=stamps)
    assert numbers_of(read_frames(path, everything)) == list(range(8))
    assert numbers_of(read_frames(path, everything, start=30, end=60)) == [2, 3]
    # Nor does a last frame that stays.
    path = write_video(tmp_path / "b.mkv", 8, codec="libx264", stamps=[*range(7), 250])
    assert numbers_of(read_frames(path, everything, frame_range=(0, 7))) == list(range(7))


# ---------------------------------------------------------------- not what was recorded


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_missing_key_frames(tmp_path, name):
    clean = write_video(tmp_path / f"clean_{name}", images=moving_scene(36), codec="libx264", b_frames=3)
    path = without_key_frames(tmp_path / name, clean)
    for how in ({}, {"every_frame": True}):
        with pytest.raises(DamagedClip, match=r"damaged: of 34 frames \d\d cannot be decoded"):
            read_frames(path, chosen, **how)
    # What lies before the first missing one is as it was.
    assert np.array_equal(read_frames(path, [0, 7], frame_range=(0, 8)), decode_all(clean)[[0, 7]])


def test_a_gap(tmp_path):
    stamps = [*range(20), *range(25000, 25020)]
    path = write_video(tmp_path / "a.mp4", 40, codec="libx264", stamps=stamps)
    told = r"expected frames all the time, the video has none in 0\.76\.\.1000 s, most of the clip"
    for part in ({}, {"start": 500.0, "end": 503.0}, {"frame_range": (10, 30)}, {"start": 0.6}):
        for every_frame in (False, True):
            with pytest.raises(UnreadableClip, match=told):
                read_frames(path, everything, **part, every_frame=every_frame)
    # The recording goes on before and after it.
    assert numbers_of(read_frames(path, everything, end=0.8)) == list(range(20))
    assert numbers_of(read_frames(path, everything, start=1000.0)) == list(range(20, 40))
    assert numbers_of(read_frames(path, everything, frame_range=(0, 20))) == list(range(20))


def test_fragments_that_are_cut(tmp_path):
    path = cut_fragments(tmp_path / "a.mp4", moving_scene(36))
    for every_frame in (False, True):
        with pytest.raises(UnreadableClip, match=r"truncated: expected \d+ frames, the file holds \d+"):
            read_frames(path, chosen, every_frame=every_frame)
    whole = write_video(tmp_path / "whole.mp4", 40, codec="libx264", movflags="frag_keyframe+empty_moov")
    assert numbers_of(read_frames(whole, everything)) == list(range(40))


# ---------------------------------------------------------------- no files


@pytest.fixture
def no_opening(monkeypatch):
    monkeypatch.setattr(video_file.av, "open", lambda *a, **k: pytest.fail("opened"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a device")
def test_what_is_no_regular_file_is_not_opened(tmp_path, no_opening):
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)  # names of sockets are short
        try:
            listener.bind("s.mp4")
        finally:
            os.chdir(here)
        kinds = {tmp_path / "pipe.mp4": "a pipe", "/dev/zero": "a device", tmp_path: "a folder", tmp_path / "s.mp4": "a socket"}  # fmt: skip # noqa: E501
        for path, kind in kinds.items():
            for read in (lambda path: read_frames(path, [0]), lambda path: VideoFile(path).seconds):
                with pytest.raises(UnreadableClip, match=f"expected a regular file, got {kind}"):
                    read(path)
    assert FrameCache(tmp_path / "cache", 10**6).key(str(tmp_path / "pipe.mp4")) is None


def test_links_lead_to_files(tmp_path):
    write_video(tmp_path / "a.mp4", 10)
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    assert numbers_of(read_frames(tmp_path / "link.mp4", [3])) == [3]
    (tmp_path / "broken.mp4").symlink_to("absent.mp4")
    with pytest.raises(UnreadableClip, match="No such file"):
        read_frames(tmp_path / "broken.mp4", [0])
    with pytest.raises(UnreadableClip, match="null"):
        read_frames("a\0.mp4", [0])


# ---------------------------------------------------------------- whatever PyAV raises


class Odd(Exception):
    pass


def raising(error):
    def raise_it(*_, **__):
        raise error

    return raise_it


ERRORS = [Odd("31 is not a valid Type\nof data"), MemoryError(), KeyError("x")]


def assert_that_clips(path, error):
    for every_frame in (False, True):
        with pytest.raises(UnreadableClip, match=str(error).partition("\n")[0] or type(error).__name__) as caught:
            read_frames(path, [0], every_frame=every_frame)
        assert caught.value.path == str(path)
        assert "\n" not in caught.value.reason


@pytest.mark.parametrize("error", ERRORS)
def test_any_exception_of_decoding_is_that_clips(tmp_path, monkeypatch, error):
    path = write_video(tmp_path / "a.mp4")

    def frames(*_):
        yield from ()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("sightline.video.wanted_frames.display_matrix", raising(error))
        assert_that_clips(path, error)
    for module in ("decoding", "selective_decoding"):
        monkeypatch.setattr(f"sightline.video.{module}._frames", frames)
    assert_that_clips(path, error)


class Faulty:
    """A container that raises where it is asked for one thing."""

    def __init__(self, container, what, error):
        self.container, self.what, self.error = container, what, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def __getattr__(self, name):
        if name == self.what:
            raise self.error
        return getattr(self.container, name)


@pytest.mark.parametrize("what", ["streams", "duration", "format", "demux"])
@pytest.mark.parametrize("error", ERRORS)
def test_any_exception_of_a_container_is_that_clips(tmp_path, monkeypatch, what, error):
    path = write_video(tmp_path / "a.mp4")
    original = av.open
    monkeypatch.setattr(video_file.av, "open", lambda *a, **k: Faulty(original(*a, **k), what, error))
    assert_that_clips(path, error)
    monkeypatch.setattr(video_file.av, "open", raising(error))
    assert_that_clips(path, error)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_stopping_is_no_damage(tmp_path, monkeypatch, stop):
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr("sightline.video.wanted_frames.display_matrix", raising(stop()))
    with pytest.raises(stop):
        read_frames(path, [0])


def test_mistakes_of_the_caller_are_told_as_such(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(ZeroDivisionError):
        read_frames(path, [0], convert=lambda frame: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read_frames(path, [0], convert=lambda frame: 1 / 0, every_frame=True)
    with pytest.raises(ZeroDivisionError):
        read_frames(path, lambda times, end: 1 / 0)
