import dataclasses
import hashlib
import json
import os

import av
import numpy as np
import pandas as pd
import pytest

from datamodules.cabin import encoding
from datamodules.cabin import files as cabin_files
from datamodules.cabin import scene as cabin_scene
from datamodules.cabin.actions import MOTION_ONLY
from datamodules.cabin.driver import elbow
from datamodules.cabin.files import (
    ACTIONS,
    DONE,
    OBJECTS,
    CabinSettings,
    clip_boxes,
    perform,
    render_clip,
    video_name,
    write_cabin,
)
from datamodules.cabin.pose import Appearance
from datamodules.synthetic_cabin import SyntheticCabin

SMALL = CabinSettings(
    actions=("talking", "texting-on-phone"), subjects=2, clips_per_action=2, frames=6, height=48, width=48
)
SIGNALS = ("pitch", "roll", "lids", "mouth", "yaw", "wheel")


def read_video(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# ------------------------------------------------------------------ rendering


def test_the_actions_are_the_twenty_of_dai():
    assert len(ACTIONS) == len(set(ACTIONS)) == 20
    assert ACTIONS[0] == "texting-on-phone"
    assert ACTIONS[-1] == "blow-nose"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_every_action_renders_with_boxes_inside_the_frame(action, size):
    settings = CabinSettings(subjects=3, clips_per_action=2, frames=8, height=size[0], width=size[1])
    for subject in (0, 2):
        frames, boxes = render_clip(settings, subject, action, 1)
        assert frames.shape == (8, *size, 3)
        assert frames.dtype == np.uint8
        assert frames.std() > 20, "the picture is flat"
        assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 0.5, "nothing moves"
        assert [(box.object, box.frame) for box in boxes] == [(name, t) for name in OBJECTS for t in range(8)]
        for box in boxes:
            assert 0 <= box.x0 <= box.x1 <= size[1]
            assert 0 <= box.y0 <= box.y1 <= size[0]
        shown = {name: np.mean([box.visible for box in boxes if box.object == name]) for name in OBJECTS}
        assert shown["head"] == 1
        assert shown["key_object"] > 0.4, "the key object is hardly ever in the picture"
        assert boxes == clip_boxes(settings, subject, action, 1)


def test_a_seed_fixes_every_pixel_and_the_selection_of_actions_does_not_matter():
    alone = dataclasses.replace(SMALL, actions=("texting-on-phone",), subjects=9)
    first, again = render_clip(SMALL, 1, "texting-on-phone", 1), render_clip(alone, 1, "texting-on-phone", 1)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    for other in (
        render_clip(dataclasses.replace(SMALL, seed=1), 1, "texting-on-phone", 1),
        render_clip(SMALL, 0, "texting-on-phone", 1),
        render_clip(SMALL, 1, "texting-on-phone", 0),
    ):
        assert np.abs(first[0].astype(int) - other[0]).mean() > 1


def test_performances_draw_what_they_always_drew():
    """A draw more or less, e.g. in noting what an action does, changes all pixels that follow; hashes of pixels
    themselves would differ between machines by rounding."""
    settings = CabinSettings(subjects=2, clips_per_action=2, frames=8)
    states = [perform(settings, *name)[1].bit_generator.state["state"]["state"] for name in settings.names()]
    assert hashlib.sha256(repr(states).encode()).hexdigest().startswith("e6f01294dc7a9f63")


def test_a_subject_looks_the_same_in_every_action_and_unlike_the_others():
    settings, actions = CabinSettings(subjects=6, frames=2), ("steering", "eating-drinking")
    for action in ("steering", "glovebox"):
        pose, _ = perform(settings, 3, action, 0)
        assert pose.appearance == Appearance.draw(settings.seed, 3)
    # The door is in view and at rest in both: it differs by noise within a subject and by appearance between subjects.
    door = [[render_clip(settings, s, a, 0)[0][:, 90:, 100:].mean() for a in actions] for s in range(6)]
    within, between = np.ptp(door, axis=1).max(), np.std(np.mean(door, axis=1))
    assert within < 0.5 * between


@pytest.mark.parametrize("side", ["right", "left"])
def test_hand_boxes_hold_exactly_what_is_drawn_of_the_hand(side, monkeypatch):
    settings = CabinSettings(subjects=1, frames=8, height=96, width=96)
    pose, _ = perform(settings, 0, "eating-drinking", 0)
    camera = cabin_scene.camera_of(pose.appearance, 96, 96)
    boxes = [box for box in clip_boxes(settings, 0, "eating-drinking", 0) if box.object == f"{side}_hand"]
    whole = cabin_scene.draw_clip(pose, camera).pixels
    draw_hand = cabin_scene.draw_hand
    monkeypatch.setattr(cabin_scene, "draw_hand", lambda c, p, s: draw_hand(c, p, s) if s != side else None)
    changed = np.abs(whole - cabin_scene.draw_clip(pose, camera).pixels) > 0.12  # more than the hand's soft shadow
    for box, mask, at, joint in zip(boxes, changed, getattr(pose, side), elbow(pose, side), strict=True):
        rows, columns = np.nonzero(mask)
        # Two pixels: one of anti-aliasing and one of the shadow's darkest rim.
        assert box.x0 - 2 <= columns.min()
        assert columns.max() + 1 <= box.x1 + 2
        assert box.y0 - 2 <= rows.min()
        assert rows.max() + 1 <= box.y1 + 2
        palm = camera.to_pixels(at)
        assert box.x0 <= palm[0] <= box.x1
        assert box.y0 <= palm[1] <= box.y1
        # The box is no larger than a hand: it is as long as a fifth of the picture at the most.
        assert max(box.x1 - box.x0, box.y1 - box.y0) < 96 / 5
        assert np.hypot(*(joint - at)) <= 0.3 + 1e-6


# ------------------------------------------------------------------ motion only


@pytest.fixture(scope="module")
def states():
    """Action -> (clips, frames, signals) of the states that a frame of the three actions shows."""
    settings = CabinSettings(subjects=30, clips_per_action=10, frames=8)
    poses = {name: [perform(settings, s, name, r)[0] for s in range(30) for r in range(10)] for name in MOTION_ONLY}
    return {name: np.array([[getattr(p, s) for s in SIGNALS] for p in of]).swapaxes(1, 2) for name, of in poses.items()}


def kolmogorov_smirnov(a, b):
    """The largest gap between two samples' distribution functions, over its 0.1 % critical value."""
    grid = np.sort(np.concatenate([a, b]))
    gap = np.abs(
        np.searchsorted(np.sort(a), grid, "right") / len(a) - np.searchsorted(np.sort(b), grid, "right") / len(b)
    ).max()
    return gap / (1.95 * np.sqrt((len(a) + len(b)) / (len(a) * len(b))))


@pytest.mark.parametrize("frame", [0, 3, 7])
def test_single_frames_of_drowsy_talking_and_steering_are_distributed_alike(states, frame):
    for other in ("talking", "steering"):
        for signal in range(len(SIGNALS)):
            a, b = states["drowsy"][:, frame, signal], states[other][:, frame, signal]
            assert kolmogorov_smirnov(a, b) < 1, SIGNALS[signal]
        # Jointly too: the correlations agree (300 clips: standard error 0.06, so 0.3 is 3.5 of the difference).
        a, b = (np.corrcoef(states[name][:, frame].T) for name in ("drowsy", other))
        assert np.abs(a - b).max() < 0.3


def test_only_the_labelled_channel_moves(states):
    moving = {"drowsy": {"pitch", "roll", "lids"}, "talking": {"mouth", "yaw"}, "steering": {"wheel"}}
    for name, of in states.items():
        swing = np.ptp(of, axis=1)
        for signal, values in zip(SIGNALS, swing.T, strict=True):
            if signal not in moving[name]:
                assert values.max() == 0, (name, signal)
            elif signal != "roll":  # heads do not tilt in every clip
                assert values.min() > 0.4, (name, signal)


def test_no_linear_reading_of_single_frames_tells_the_three_apart():
    settings = CabinSettings(actions=MOTION_ONLY, subjects=24, clips_per_action=2, frames=8, height=32, width=32)
    clips = np.array([render_clip(settings, *name)[0][..., 0] for name in settings.names()]) / 255
    labels = np.array([MOTION_ONLY.index(action) for _, action, _ in settings.names()])
    train = np.array([subject < 16 for subject, _, _ in settings.names()])

    def accuracy(features):
        features = features.reshape(len(features), -1)
        features = features - features[train].mean(axis=0)
        kernel = features @ features[train].T
        ridge = np.eye(train.sum()) * 0.03 * np.trace(kernel[train]) / train.sum()
        scores = kernel @ np.linalg.solve(kernel[train] + ridge, np.eye(3)[labels[train]] - 1 / 3)
        return (scores.argmax(axis=1) == labels)[~train].mean()

    # 48 test clips: chance is 0.33 with a standard error of 0.07.
    assert accuracy(clips[:, 4]) < 0.54
    assert accuracy(np.abs(np.diff(clips, axis=1)).mean(axis=1)) > 0.85


# ------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def cabin(tmp_path_factory):
    root = tmp_path_factory.mktemp("cabin") / "set"
    write_cabin(root, SMALL, workers=1)
    return root


def test_written_videos_decode_to_the_rendered_frames(cabin):
    for name in SMALL.names():
        rendered, _ = render_clip(SMALL, *name)
        decoded = read_video(cabin / video_name(name))
        assert decoded.shape == rendered.shape
        # 256 levels become 220 in the file, which costs half a level, and FFmpeg's converter rounds once more.
        assert np.abs(decoded.astype(int) - rendered).max() <= 1
    with av.open(str(cabin / video_name((0, "talking", 0)))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == SMALL.fps
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert packets[0].is_keyframe
        assert packets[0].pts == 0


def test_tables_list_every_clip_and_every_frame(cabin):
    clips = pd.read_csv(cabin / "clips.csv")
    assert list(clips.columns) == ["video", "label", "subject", "start", "end"]
    assert len(clips) == 8
    assert set(clips.subject) == {"s00", "s01"}
    assert clips.start.isna().all()
    assert all((cabin / video).is_file() for video in clips.video)
    boxes = pd.read_parquet(cabin / "boxes.parquet")
    assert list(boxes.columns) == ["video", "frame", "object", "name", "x0", "y0", "x1", "y1", "visible"]
    assert len(boxes) == 8 * SMALL.frames * len(OBJECTS)
    assert set(boxes[boxes.object == "key_object"].name) == {"mouth", "phone"}
    assert json.loads((cabin / DONE).read_text())["subjects"] == 2


def test_the_number_of_workers_does_not_matter(cabin, tmp_path):
    write_cabin(tmp_path / "two", SMALL, workers=2)
    assert files(tmp_path / "two") == files(cabin)
    for name in files(cabin):
        if name != "boxes.parquet":
            assert (tmp_path / "two" / name).read_bytes() == (cabin / name).read_bytes(), name
    pd.testing.assert_frame_equal(*(pd.read_parquet(root / "boxes.parquet") for root in (cabin, tmp_path / "two")))


def test_an_interrupted_rendering_is_not_taken_as_whole_and_is_resumed(cabin, tmp_path, monkeypatch):
    root, rendered = tmp_path / "set", []

    def interrupted(settings, *name):
        if len(rendered) == 3:
            raise KeyboardInterrupt
        rendered.append(name)
        return render_clip(settings, *name)

    monkeypatch.setattr(cabin_files, "render_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_cabin(root, SMALL, workers=1)
    assert not (root / DONE).exists()
    assert len(files(root / "videos")) == 3
    with pytest.raises(ValueError, match="subjects is 2, expected 5"):
        write_cabin(root, dataclasses.replace(SMALL, subjects=5))
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}

    monkeypatch.setattr(cabin_files, "render_clip", lambda *args: rendered.append(args[1:]) or render_clip(*args))
    write_cabin(root, SMALL, workers=1)
    assert rendered == list(SMALL.names())
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert files(root) == files(cabin)
    pd.testing.assert_frame_equal(*(pd.read_parquet(where / "boxes.parquet") for where in (root, cabin)))


def test_a_video_that_fails_to_be_written_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        encoding.write_video(tmp_path / "clip.mp4", np.zeros((2, 32, 32), np.uint8), 8.0)
    assert files(tmp_path) == []


def test_a_whole_data_set_is_reused_and_one_with_other_settings_refused(cabin, monkeypatch):
    monkeypatch.setattr(cabin_files, "_produce", None)
    write_cabin(cabin, SMALL)
    with pytest.raises(ValueError, match=r"seed is 0, expected 7.*Choose another folder"):
        write_cabin(cabin, dataclasses.replace(SMALL, seed=7))
    monkeypatch.setattr(cabin_files, "FORMAT_VERSION", 99)
    with pytest.raises(ValueError, match="format is 2, expected 99"):
        write_cabin(cabin, SMALL)


def test_somebody_elses_clips_are_not_overwritten(tmp_path):
    (tmp_path / "clips.csv").write_text("mine")
    with pytest.raises(ValueError, match="holds clips of its own"):
        write_cabin(tmp_path, SMALL)
    assert (tmp_path / "clips.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": ("talking", "juggling")}, r"'juggling'.*texting-on-phone.*blow-nose"),
        ({"actions": ()}, "at least one action"),
        ({"actions": ("talking", "talking")}, "none twice"),
        ({"subjects": 0}, "subjects"),
        ({"clips_per_action": -1}, "clips_per_action"),
        ({"frames": 0}, "frames"),
        ({"fps": 0.0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"seed": -1}, "seed"),
        ({"height": 63}, "even"),
        ({"width": 8}, "at least 32"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_unknown_action_and_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Unknown action"):
        render_clip(SMALL, 0, "juggling", 0)
    with pytest.raises(ValueError, match="workers"):
        write_cabin(tmp_path / "none", SMALL, workers=0)


# ------------------------------------------------------------------ data module


def test_data_module_knows_its_classes_before_and_its_clips_after_rendering(tmp_path):
    options = dict(actions=["talking", "glovebox"], subjects=6, clips_per_action=1, clip_frames=4, clip_size=32)
    data = SyntheticCabin(root=str(tmp_path), **options, frames=4, size=32, short_side=32, batch_size=2, num_workers=0)
    assert data.class_names == ["talking", "glovebox"]
    assert data.num_classes == 2
    assert not any(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="prepare_data"):
        data.clips("train")
    data.prepare_data()
    groups = {split: {clip.group for clip in data.clips(split)} for split in ("train", "val", "test")}
    assert sum(map(len, groups.values())) == 6 == len(set().union(*groups.values()))
    batch = next(iter(data.train_dataloader()))
    assert batch["clip"].shape == (2, 3, 4, 32, 32)
    assert len({clip.label for clip in data.clips("train")}) == 2


def test_data_modules_with_other_settings_live_side_by_side(tmp_path):
    roots = [
        SyntheticCabin(root=str(tmp_path), subjects=n, clip_seed=seed).root for n, seed in ((3, 0), (4, 0), (4, 1))
    ]
    assert len(set(roots)) == 3
    assert all(root.parent == tmp_path for root in roots)
    with pytest.raises(ValueError, match="juggling"):
        SyntheticCabin(root=str(tmp_path), actions=["juggling"])
