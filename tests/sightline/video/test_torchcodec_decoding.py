"""torchcodec as the decoder: PyAV's frames, or PyAV itself. For the rules a module of the same form stands in."""

import logging
import sys
import types

import numpy as np
import pytest
import torch

from datamodules.clip_data_module import ClipDataModule
from sightline.video import torchcodec_decoding
from sightline.video.clips import Clip, ClipSettings, load_clip
from sightline.video.decoding import DamagedClip, UnreadableClip, read_frames
from sightline.video.frame_cache import FrameCache
from sightline.video.torchcodec_decoding import require_torchcodec
from tests.sightline.video.damaged_files import change_bytes, moving_scene
from tests.sightline.video.video_files import (
    decode_all,
    numbered_frame,
    numbers_of,
    set_display_matrix,
    truncate,
    write_packed_avi,
    write_video,
)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    forget()
    monkeypatch.setattr(torchcodec_decoding, "_said", set())
    yield
    forget()


def forget():
    torchcodec_decoding._checked.cache_clear()
    require_torchcodec.cache_clear()


@pytest.fixture
def torchcodec():
    try:
        return require_torchcodec()
    except ValueError as error:
        pytest.skip(str(error))


def write(folder, name="a.mp4", codec="libx264", **options):
    images = [numbered_frame(number, 96, 64) for number in range(40)]
    return write_video(folder / name, images=images, codec=codec, b_frames=2, **options)


# ---------------------------------------------------------------- the rules, with a module that stands in


class Stand:
    """What `VideoDecoder` offers, over PyAV's frames; what a test changes in it makes it like the real one's faults."""

    opened: list = []  # noqa: RUF012
    count_off, shift_s, turn = 0, 0.0, staticmethod(lambda image: image)

    def __init__(self, source, dimension_order, num_ffmpeg_threads, device):
        if not source:
            raise RuntimeError("Could not open input bytes")
        assert (dimension_order, device) == ("NHWC", "cpu")
        self.frames = decode_all(source)
        self.opened.append(source)

    def __len__(self):
        return len(self.frames) + self.count_off

    def get_frame_at(self, index):
        data = torch.from_numpy(np.ascontiguousarray(self.turn(self.frames[index])))
        return types.SimpleNamespace(data=data, pts_seconds=index / 25 + self.shift_s * (index > 0))


@pytest.fixture
def stand_in(monkeypatch):
    class Decoder(Stand):
        opened = []  # noqa: RUF012

    package, decoders = types.ModuleType("torchcodec"), types.ModuleType("torchcodec.decoders")
    package.__version__, package.decoders, decoders.VideoDecoder = "1.2", decoders, Decoder
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    return Decoder


def brighter(levels):
    return staticmethod(lambda image: (image.astype(int) + levels).clip(0, 255).astype(np.uint8))


def test_takes_its_frames(tmp_path, stand_in, caplog):
    # One level brighter, which other versions of FFmpeg may be: so it shows whose frames these are.
    stand_in.turn = brighter(1)
    path = write(tmp_path)
    expected = stand_in.turn(decode_all(path)[[3, 39, 3]])
    assert np.array_equal(read_frames(path, [3, 39, 3], decoder="torchcodec"), expected)
    halves = read_frames(path, [3], decoder="torchcodec", convert=lambda image: image[::2, ::2])
    assert np.array_equal(halves, expected[:1, ::2, ::2])
    part = read_frames(path, [0, 4], frame_range=(20, 25), decoder="torchcodec")
    assert np.array_equal(part, stand_in.turn(decode_all(path)[[20, 24]]))
    assert caplog.records == []
    assert len(stand_in.opened) == 4  # once for the first frame, once for each reading


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"count_off": 1}, "it counts other frames"),
        ({"shift_s": 0.04}, "its frames have other time stamps"),
        ({"turn": brighter(9)}, "its first frame differs"),
        ({"turn": staticmethod(lambda image: image[:, ::-1])}, "its first frame differs"),
        ({"turn": staticmethod(lambda image: image.transpose(1, 0, 2))}, "its frames have another size"),
    ],
)
def test_other_frames_are_not_taken(tmp_path, stand_in, caplog, fault, reason):
    # Frame 0 must be seen to differ: black with one white corner, and not symmetric.
    images = [numbered_frame(63 - 4 - number, 96, 64) for number in range(40)]
    paths = [write_video(tmp_path / f"{name}.mp4", images=images, codec="libx264") for name in "ab"]
    for name, value in fault.items():
        setattr(stand_in, name, value)
    with caplog.at_level(logging.WARNING):
        for path in paths:
            assert np.array_equal(read_frames(path, [5, 20], decoder="torchcodec"), decode_all(path)[[5, 20]])
    assert [record.message for record in caplog.records] == [
        f"PyAV reads {paths[0]}, and others like it, instead of torchcodec: {reason}."
    ]


def test_what_is_damaged_is_read_by_pyav(tmp_path, stand_in, caplog):
    # torchcodec gives frames in which the decoder hid errors, and does not say so.
    clean = write_video(tmp_path / "clean.mp4", images=moving_scene(24), codec="libx264")
    for seed in range(100):
        path = change_bytes(tmp_path / "a.mp4", clean, 1, seed)
        try:
            read_frames(path, [0, 12, 23])
        except DamagedClip:
            break
        except UnreadableClip:
            continue
    stand_in.turn = brighter(1)
    with pytest.raises(DamagedClip):
        read_frames(path, [0, 12, 23], decoder="torchcodec")
    assert [record.args[1] for record in caplog.records] == ["it does not say which frames are damaged"]


def test_the_first_frame_tells_nothing_of_mirrored_or_deep_colours(tmp_path, stand_in, caplog):
    # A black frame looks the same either way: what the file says decides.
    images = [np.zeros((64, 96, 3), dtype=np.uint8), *[numbered_frame(number, 96, 64) for number in range(1, 8)]]
    mirrored = set_display_matrix(write_video(tmp_path / "a.mp4", images=images, codec="libx264"), -1, 0, 0, 1)
    assert np.array_equal(read_frames(mirrored, [5], decoder="torchcodec")[0], decode_all(mirrored)[5][:, ::-1])
    deep = write_video(tmp_path / "b.mkv", images=images, codec="ffv1", pixels="yuv420p10le")
    assert np.array_equal(read_frames(deep, [5], decoder="torchcodec"), decode_all(deep)[[5]])
    assert [("mirror" in record.message, "8 bits" in record.message) for record in caplog.records] == [
        (True, False),
        (False, True),
    ]


def test_unreadable_files_are_named_as_ever(tmp_path, stand_in):
    images = [numbered_frame(number % 64, 160, 120) for number in range(100)]
    cut = truncate(write_video(tmp_path / "cut.avi", images=images), 0.6)
    with pytest.raises(UnreadableClip, match=r"truncated: expected \d+ frames"):
        read_frames(cut, [0], decoder="torchcodec")
    with pytest.raises(UnreadableClip, match="No such file"):
        read_frames(tmp_path / "absent.mp4", [0], decoder="torchcodec")


def test_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ValueError, match=r"Expected torchcodec to load.*Install torchcodec and the shared libraries"):
        ClipSettings(decoder="torchcodec")
    with pytest.raises(ValueError, match="Expected decoder 'pyav' or 'torchcodec', got 'opencv'"):
        ClipSettings(decoder="opencv")


def test_where_ffmpeg_is_missing(stand_in, monkeypatch):
    def fails(self, *args, **kwargs):
        raise RuntimeError("Could not load libtorchcodec. Likely causes:\n  1. FFmpeg is not properly installed")

    monkeypatch.setattr(stand_in, "__init__", fails)
    with pytest.raises(ValueError, match=r"got: Could not load libtorchcodec\. Install torchcodec and the shared"):
        require_torchcodec()


class OneClip(ClipDataModule):
    def read_clips(self):
        return ["a"], [Clip("x", "x.mp4", 0, "g", split="train")]


def test_it_enters_the_datas_hash_and_the_cache(tmp_path, stand_in):
    pyav, other = OneClip(), OneClip(decoder="torchcodec")
    assert "decoder" not in pyav.sampling()
    assert other.sampling() == {**pyav.sampling(), "decoder": "torchcodec"}
    assert pyav.data_hash("train") != other.data_hash("train")
    stand_in.turn = brighter(1)
    clip, cache = Clip("x", str(write(tmp_path)), 0, "g"), FrameCache(tmp_path / "cache", 10**8)
    settings = ClipSettings(frames=4, size=32, short_side=48)
    kept = [
        load_clip(clip, ClipSettings(frames=4, size=32, short_side=48, decoder=decoder), cache=cache)
        for decoder in ("pyav", "torchcodec")
    ]
    assert torch.equal(kept[0], load_clip(clip, settings, cache=cache))
    assert not torch.equal(kept[0], kept[1])


# ---------------------------------------------------------------- the real one


def test_real_one_gives_the_same_frames(tmp_path, torchcodec, caplog):
    upside_down = set_display_matrix(write(tmp_path, "turned.mp4"), -1, 0, 0, -1)
    for path in (write(tmp_path), write(tmp_path, "b.mkv"), upside_down):
        for part in (None, (17, 30)):
            frames = read_frames(path, [0, 7, 12], frame_range=part, decoder="torchcodec")
            expected = read_frames(path, [0, 7, 12], frame_range=part)
            assert np.abs(frames.astype(int) - expected).max() <= torchcodec_decoding._ROUNDING_LEVELS
    assert caplog.records == []


def test_real_one_is_passed_over(tmp_path, torchcodec, caplog):
    images = [numbered_frame(number, 96, 64) for number in range(41)]
    paths = [
        write_packed_avi(tmp_path / "packed.avi", images, 2),
        set_display_matrix(write(tmp_path, "mirrored.mp4"), -1, 0, 0, 1),
        write(tmp_path, "deep.mkv", codec="ffv1", pixels="yuv420p10le"),
    ]
    for path in paths:
        frames = read_frames(path, [3, 20, 39], decoder="torchcodec")
        assert np.array_equal(frames, read_frames(path, [3, 20, 39]))
    assert numbers_of(read_frames(paths[0], range(41), decoder="torchcodec")) == list(range(41))
    assert all(any(str(path) in record.message for record in caplog.records) for path in paths)
