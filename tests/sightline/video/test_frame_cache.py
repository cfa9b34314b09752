import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.dataset import ClipDataset
from sightline.run.unfinished import is_unfinished
from sightline.video import sources
from sightline.video.clips import Clip, ClipSettings, load_clip
from sightline.video.frame_cache import FrameCache
from tests.sightline.video.video_files import write_video

SMALL = ClipSettings(frames=4, size=48, short_side=48)


@pytest.fixture
def clip(tmp_path):
    path = write_video(tmp_path / "a.avi", num_frames=20)
    return Clip("a.avi", str(path), 0, group="g")


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache", 10**9)


@pytest.fixture
def reads(monkeypatch):
    """How often a video file was decoded."""
    seen = []
    original = sources.read_frames
    monkeypatch.setattr(sources, "read_frames", lambda *a, **k: seen.append(a[0]) or original(*a, **k))
    return seen


def entries(cache):
    return sorted(path for path in cache.folder.glob("??/*.frames") if not is_unfinished(path.name))


def test_second_time_without_decoding(clip, cache, reads):
    plain = load_clip(clip, SMALL)
    assert torch.equal(load_clip(clip, SMALL, cache=cache), plain)
    assert torch.equal(load_clip(clip, SMALL, cache=FrameCache(cache.folder, 10**9)), plain)
    assert len(reads) == 2  # without the cache, and the first time with it
    load_clip(clip, SMALL, random.Random(0), cache=cache)  # training neither reads nor writes it
    assert len(reads) == 3
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("change", [{"frames": 5}, {"short_side": 50}, {"antialias": False}])
def test_settings_that_matter(clip, cache, change):
    load_clip(clip, SMALL, cache=cache)
    changed = dataclasses.replace(SMALL, **change)
    assert torch.equal(load_clip(clip, changed, cache=cache), load_clip(clip, changed))
    assert len(entries(cache)) == 2


def test_parts_of_a_file_and_other_content(clip, cache, tmp_path):
    parts = [clip, dataclasses.replace(clip, start=0.2), dataclasses.replace(clip, frame_range=(3, 9))]
    for part in parts * 2:
        assert torch.equal(load_clip(part, SMALL, cache=cache), load_clip(part, SMALL))
    assert len(entries(cache)) == 3
    write_video(tmp_path / "a.avi", num_frames=10)
    assert torch.equal(load_clip(clip, SMALL, cache=cache), load_clip(clip, SMALL))
    assert len(entries(cache)) == 4


def test_the_same_content_elsewhere_is_one_entry(clip, cache, tmp_path):
    other = tmp_path / "b.avi"
    other.write_bytes((tmp_path / "a.avi").read_bytes())
    load_clip(clip, SMALL, cache=cache)
    load_clip(dataclasses.replace(clip, path=str(other)), SMALL, cache=cache)
    assert len(entries(cache)) == 1


def flip_a_bit(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [flip_a_bit, lambda content: content[:-7], lambda content: b"", lambda c: c[1:]])
def test_damaged_entry_is_written_again(clip, cache, damage, reads):
    expected = load_clip(clip, SMALL, cache=cache)
    [path] = entries(cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert torch.equal(load_clip(clip, SMALL, cache=cache), expected)
    assert path.read_bytes() == whole
    assert len(reads) == 2


def test_least_recently_used_goes_first(tmp_path):
    frames = np.zeros((1, 10, 10, 3), dtype=np.uint8)  # 328 bytes with its header
    cache = FrameCache(tmp_path, 1000)
    for number, name in enumerate(["aa1", "bb2", "cc3"]):
        cache.write(name, frames)
        os.utime(cache._path(name), (number, number))
    assert cache.read("aa1") is not None  # used now
    cache.write("dd4", frames)
    # Four are 1312 bytes; two remain below 900.
    assert [cache.read(name) is not None for name in ("aa1", "bb2", "cc3", "dd4")] == [True, False, False, True]


def test_folder_that_cannot_be_written(clip, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = FrameCache(tmp_path / "file", 10**9)
    for _ in range(2):
        assert torch.equal(load_clip(clip, SMALL, cache=cache), load_clip(clip, SMALL))
    assert caplog.text.count("cannot be written") == 1


def _read_for_ever(clips, folder):
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    cache = FrameCache(folder, 10**9)
    for _ in range(1000):
        for _ in DataLoader(ClipDataset(clips, SMALL, cache=cache), batch_size=None, num_workers=2):
            pass
        for path in entries(cache):
            path.unlink(missing_ok=True)


@pytest.mark.timeout(120)
def test_two_ranks_of_two_workers_killed_while_writing(tmp_path):
    clips = []
    for number in range(8):
        path = write_video(tmp_path / f"{number}.avi", num_frames=8 + number)
        clips.append(Clip(path.name, str(path), 0, group="g"))
    cache = FrameCache(tmp_path / "cache", 10**9)
    context = multiprocessing.get_context("fork")
    for delay in (0.0, 0.05, 0.2):
        ranks = [context.Process(target=_read_for_ever, args=(clips, cache.folder)) for _ in range(2)]
        for rank in ranks:
            rank.start()
        deadline = time.time() + 30
        while not entries(cache) and time.time() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
            rank.join(10)
        for path in entries(cache):
            assert cache.read(path.stem) is not None, path
    for clip in clips * 2:
        assert torch.equal(load_clip(clip, SMALL, cache=cache), load_clip(clip, SMALL))
    assert len(entries(cache)) == 8
