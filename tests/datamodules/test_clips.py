import dataclasses
import random

import numpy as np
import pytest
import torch

from datamodules.dataset import ClipDataset, Sample, collate
from sightline.video.clips import Clip, ClipSettings, load_clip, load_views
from sightline.video.decoding import DamagedClip, UnreadableClip
from sightline.video.frame_cache import FrameCache
from tests.sightline.video.damaged_files import change_bytes, moving_scene
from tests.sightline.video.video_files import decode_all, number_of, numbers_of, write_video

SMALL = ClipSettings(frames=4, size=48, short_side=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five clips of class 0, of which bad.avi is none, and one of class 1."""
    root = tmp_path_factory.mktemp("clips")
    for name in ("a", "b", "c", "d", "other"):
        write_video(root / f"{name}.avi", num_frames=20)
    (root / "bad.avi").write_bytes(b"")
    return root


@pytest.fixture
def clips(folder):
    def clip(name, label=0):
        return Clip(f"{name}.avi", str(folder / f"{name}.avi"), label, group="g")

    return [*map(clip, ("a", "b", "c", "d", "bad")), clip("other", 1)]


def test_evaluation_takes_the_middle_of_everything(clips):
    frames = load_clip(clips[0], SMALL)
    assert frames.dtype == torch.uint8
    assert frames.shape == (3, 4, 48, 48)
    every = decode_all(clips[0].path)
    # Frames 2, 7, 12, 17 of 20; columns 8..55 of 64.
    assert np.array_equal(frames.permute(1, 2, 3, 0).numpy(), every[[2, 7, 12, 17], :, 8:56])


def test_training_view_is_one_square_for_all_frames(clips):
    views = set()
    for seed in range(8):
        frames = load_clip(clips[0], SMALL, random.Random(seed)).permute(1, 2, 3, 0).numpy()
        every = decode_all(clips[0].path)
        places = [
            (offset, left)
            for offset in range(5)
            for left in range(17)
            if np.array_equal(frames, every[offset::5, :, left : left + 48])
        ]
        assert len(places) == 1  # one offset within the parts of 5 frames, and one square, for the whole clip
        views.add(places[0])
    assert len({offset for offset, _ in views}) > 2
    assert len({left for _, left in views}) > 4


def test_training_may_cut_the_centre(clips):
    settings = dataclasses.replace(SMALL, train_crop="center")
    frames = load_clip(clips[0], settings, random.Random(0)).permute(1, 2, 3, 0).numpy()
    every = decode_all(clips[0].path)[:, :, 8:56]
    assert any(np.array_equal(frames, every[offset::5]) for offset in range(5))


def test_training_may_cut_more_than_evaluation(clips):
    settings = ClipSettings(frames=4, size=32, short_side=48, train_size=48)
    chance = random.Random(0)
    whole = load_clip(clips[0], settings, chance)
    assert whole.shape == (3, 4, 48, 48)
    assert torch.equal(whole, load_clip(clips[0], SMALL, random.Random(0)))  # drawn in the same way
    assert load_clip(clips[0], settings).shape == (3, 4, 32, 32)


def test_one_view_is_what_evaluation_sees(clips):
    assert torch.equal(load_views(clips[0], SMALL), load_clip(clips[0], SMALL)[None])


def test_views_by_hand(clips):
    views = load_views(clips[0], dataclasses.replace(SMALL, test_clips=2, test_crops=3))
    assert views.shape == (6, 3, 4, 48, 48)
    every = decode_all(clips[0].path)  # 20 frames of 48x64
    # Parts of 5 frames: at a quarter and at three quarters of each. Places: left, centre and right of 64 columns.
    expected = [
        every[moments][:, :, left : left + 48]
        for moments in ([1, 6, 11, 16], [3, 8, 13, 18])
        for left in (0, 8, 16)
    ]  # fmt: skip
    assert np.array_equal(views.permute(0, 2, 3, 4, 1).numpy(), np.stack(expected))


def test_views_of_a_short_clip_repeat_frames(clips):
    short = dataclasses.replace(clips[0], frame_range=(3, 5))
    views = load_views(short, dataclasses.replace(SMALL, test_clips=3))
    every = decode_all(clips[0].path)[:, :, 8:56]
    for view in views.permute(0, 2, 3, 4, 1).numpy():
        assert np.array_equal(view, every[[3, 3, 4, 4]])


def test_training_samples_have_seeds(clips):
    training, evaluation = ClipDataset(clips, SMALL, training=True), ClipDataset(clips, SMALL)
    seeds = [training[item].seed for item in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert len(set(seeds)) == 3
    assert seeds[0] == seeds[3]
    assert evaluation[0].seed is None
    assert collate([training[0, 0], training[0, 1]])["seed"] == [seeds[0], seeds[2]]
    assert collate([evaluation[0]])["seed"] == []


def test_collate_puts_views_in_a_row(clips):
    dataset = ClipDataset(clips, dataclasses.replace(SMALL, test_clips=2), views=True)
    batch = collate([dataset[0], dataset[4], dataset[5]])
    assert batch["clip"].shape == (4, 3, 4, 48, 48)
    assert batch["label"].tolist() == [0, 1]
    assert torch.equal(batch["clip"][2:], dataset[5].frames)


def test_part_of_a_file(clips):
    part = dataclasses.replace(clips[0], start=0.4, end=0.56)
    frames = load_clip(part, ClipSettings(frames=4, size=48, short_side=48))
    expected = decode_all(part.path)[10:14, :, 8:56]
    assert np.array_equal(frames.permute(1, 2, 3, 0).numpy(), expected)


def test_small_frames_are_enlarged(clips):
    frames = load_clip(clips[0], ClipSettings(frames=2, size=96, short_side=128))
    assert frames.shape == (3, 2, 96, 96)


def test_evaluation_leaves_a_bad_clip_out(clips):
    sample = ClipDataset(clips, SMALL)[4]
    assert sample.frames is None
    [(name, reason)] = sample.unreadable
    assert name == "bad.avi"
    assert "cannot be opened" in reason


def test_training_replaces_a_bad_clip_by_one_of_its_class(clips):
    dataset = ClipDataset(clips, SMALL, training=True, seed=3)
    substitutes = set()
    for epoch in range(10):
        sample = dataset[epoch, 4]
        again = dataset[epoch, 4]
        assert sample.clip == again.clip
        assert torch.equal(sample.frames, again.frames)
        assert sample.clip.label == 0
        assert [name for name, _ in sample.unreadable] == ["bad.avi"]
        substitutes.add(sample.clip.sample_id)
    assert len(substitutes) > 1


def test_training_leaves_out_what_no_clip_can_replace(clips):
    lonely = [dataclasses.replace(clips[4], label=1)]
    sample = ClipDataset(lonely, SMALL, training=True)[0, 0]
    assert sample.clip is None
    assert [name for name, _ in sample.unreadable] == ["bad.avi"]


def test_collate(clips):
    dataset = ClipDataset(clips, SMALL)
    batch = collate([dataset[0], dataset[4], dataset[5]])
    assert batch["clip"].shape == (2, 3, 4, 48, 48)
    assert batch["label"].tolist() == [0, 1]
    assert batch["label"].dtype == torch.int64
    assert batch["sample_id"] == ["a.avi", "other.avi"]
    assert batch["group"] == ["g", "g"]
    assert [name for name, _ in batch["unreadable"]] == ["bad.avi"]


def test_collate_of_nothing_readable():
    batch = collate([Sample(None, None, [("bad.avi", "empty")])], shape=(4, 48, 48))
    assert batch["clip"].shape == (0, 3, 4, 48, 48)
    assert batch["clip"].dtype == torch.uint8
    assert batch["label"].shape == (0,)
    assert batch["label"].dtype == torch.int64
    assert (batch["sample_id"], batch["group"], batch["unreadable"]) == ([], [], [("bad.avi", "empty")])


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 0},
        {"short_side": 47},
        {"short_side": 10**9},
        {"train_crop": "left"},
        {"test_clips": 0},
        {"test_crops": 2},
    ],
)
def test_settings_refuse_nonsense(changes):
    with pytest.raises(ValueError, match="Expected"):
        dataclasses.replace(SMALL, **changes)


def test_numbers_can_be_read_back(clips):
    assert numbers_of(decode_all(clips[0].path)) == list(range(20))
    assert number_of(np.zeros((10, 10, 3), dtype=np.uint8)) == 0


def test_training_takes_another_clip_where_the_decoder_hid_errors(tmp_path):
    clean = write_video(tmp_path / "clean.mp4", images=moving_scene(24), codec="libx264", gop=24)
    for seed in range(100):
        path = change_bytes(tmp_path / "bad.mp4", clean, 1, seed)
        try:
            load_clip(Clip("bad", str(path), 0, "g"), SMALL)
        except DamagedClip:
            break
        except UnreadableClip:
            continue
    clips = [Clip("bad", str(path), 0, "g"), Clip("good", str(clean), 0, "g")]
    sample = ClipDataset(clips, SMALL, training=True)[0]
    assert sample.clip == clips[1]
    [(name, reason)] = sample.unreadable
    assert name == "bad"
    assert reason.startswith("damaged: errors were hidden in frame(s) ")
    assert ClipDataset(clips, SMALL)[0].frames is None
    cache = FrameCache(tmp_path / "cache", 10**9)
    for _ in range(2):
        with pytest.raises(DamagedClip):
            load_clip(clips[0], SMALL, cache=cache)
