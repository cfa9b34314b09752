"""Masks by hand, against the boxes of the same shapes, and against what is really drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.cabin import scene
from datamodules.cabin.actions import ACTIONS
from datamodules.cabin.canvas import Camera
from datamodules.cabin.files import OBJECTS, CabinSettings, clip_boxes, perform
from datamodules.cabin.masks import MaskCanvas, clip_masks
from datamodules.synthetic_cabin import SyntheticCabin
from sightline.video.boxes import input_square
from sightline.video.sampling import uniform_indices

SETTINGS = CabinSettings(subjects=2, frames=6, height=112, width=112)


def test_pixels_whose_centre_lies_in_the_shape_by_hand():
    canvas = MaskCanvas(2, Camera(8, 8), ["disc", "bar"])
    with canvas.track("disc"):
        canvas.ellipse(np.array([[0.5, 0.5], [0.25, 0.5]]), (0.25, 0.25), 1.0, alpha=np.array([1.0, 0.0]))
    with canvas.track("bar"):
        canvas.box([0.5, 0.25], (0.25, 0.125), 1.0)
    canvas.box([0.5, 0.5], (1, 1), 1.0)  # of no name
    y, x = np.mgrid[0:8, 0:8] + 0.5
    assert np.array_equal(canvas.masks["disc"][0], np.hypot(x - 4, y - 4) <= 2)
    assert canvas.masks["disc"][0].sum() == 12
    assert not canvas.masks["disc"][1].any()  # not to be seen in this frame
    assert np.array_equal(canvas.masks["bar"], np.broadcast_to((abs(x - 4) <= 2) & (abs(y - 2) <= 1), (2, 8, 8)))
    assert not canvas.pixels.any()


@pytest.mark.parametrize("action", ACTIONS)
def test_masks_lie_in_their_boxes_and_fill_them(action):
    """Boxes are those of the shapes before they are cut by the frame, so only whole ones are compared at all sides.

    A capsule's box is as wide as its thicker end and a rounded box's has the corners: 3 pixels are allowed for these,
    and 1 for shapes that have neither.
    """
    for subject in range(2):
        masks = clip_masks(SETTINGS, subject, action, 0, 112, 112)
        for box in clip_boxes(SETTINGS, subject, action, 0):
            rows, columns = np.nonzero(masks[box.object][box.frame])
            if not box.x0 < box.x1:
                assert not len(rows)
                continue
            # Edges are rounded to a hundredth of a pixel.
            assert columns.min() + 0.5 >= box.x0 - 0.01
            assert columns.max() + 0.5 <= box.x1 + 0.01
            assert rows.min() + 0.5 >= box.y0 - 0.01
            assert rows.max() + 0.5 <= box.y1 + 0.01
            if box.x0 > 0 and box.y0 > 0 and box.x1 < 112 and box.y1 < 112:
                found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                exact = box.name in ("head", "wheel", "phone", "paper", "sunglasses", "mouth", "eyes", "radio")
                assert np.abs(np.subtract(found, box[3:7])).max() <= (1 if exact else 3)


@pytest.mark.parametrize("side", ["right", "left"])
def test_masks_are_where_hands_are_really_drawn(side, monkeypatch):
    pose, _ = perform(SETTINGS, 0, "eating-drinking", 0)
    camera = scene.camera_of(pose.appearance, 112, 112)
    masks = clip_masks(SETTINGS, 0, "eating-drinking", 0, 112, 112)[f"{side}_hand"]
    whole, draw_hand = scene.draw_clip(pose, camera).pixels, scene.draw_hand
    monkeypatch.setattr(scene, "draw_hand", lambda c, p, s: draw_hand(c, p, s) if s != side else None)
    changed = np.abs(whole - scene.draw_clip(pose, camera).pixels)
    assert (changed[masks] > 0.02).mean() > 0.9  # some of the hand is as bright as what it hides
    near = np.zeros_like(masks)
    for down in (-2, -1, 0, 1, 2):
        for across in (-2, -1, 0, 1, 2):
            near |= np.roll(masks, (down, across), axis=(1, 2))
    assert not (changed[~near] > 0.12).any()  # more than the hand's soft shadow


def test_another_size_shows_the_same_shapes():
    small, large = (clip_masks(SETTINGS, 1, "texting-on-phone", 0, size, size) for size in (56, 224))
    for thing in OBJECTS:
        shares = [masks[thing].mean(axis=(1, 2)) for masks in (small, large)]
        np.testing.assert_allclose(*shares, atol=0.004)
        coarse = large[thing].reshape(6, 56, 4, 56, 4).mean(axis=(2, 4))
        # A pixel that is wholly covered, or not at all, has its centre in or out as well.
        assert small[thing][coarse == 1].all()
        assert not small[thing][coarse == 0].any()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cabin")


def data_of(root, size):
    data = SyntheticCabin(
        root=str(root), actions=["texting-on-phone", "reach-objects"], subjects=6,
        clips_per_action=1, clip_frames=8, clip_size=96, render_workers=1,
        frames=4, size=size, short_side=80, num_workers=0,
    )  # fmt: skip
    data.prepare_data()
    return data


@pytest.fixture(scope="module")
def cabin(root):
    return data_of(root, 64)


def test_masks_are_resized_and_cut_as_boxes_are(cabin):
    assert input_square(96, 96, cabin.settings) == ((80, 80), (8, 8))
    taken = uniform_indices(8, 4)
    for clip in cabin.clips("train"):
        truth = cabin.truth(clip, masks=True)
        assert replace(truth, masks={}) == cabin.truth(clip)
        assert {name: mask.shape for name, mask in truth.masks.items()} == dict.fromkeys(
            ("head", "hand", "object"), torch.Size((4, 64, 64))
        )
        drawn = clip_masks(cabin.cabin, int(clip.group[1:]), cabin.class_names[clip.label], 0, 80, 80)
        for name, mask in truth.masks.items():
            boxed = torch.zeros_like(mask)
            for box in (box for box in truth.boxes if box.name == name):
                y, x = torch.arange(64) + 0.5, torch.arange(64) + 0.5
                boxed[box.frame] |= ((y >= box.y0) & (y <= box.y1))[:, None] & ((x >= box.x0) & (x <= box.x1))[None]
            assert not bool((mask & ~boxed).any())
            assert torch.equal(mask.flatten(1).any(dim=1), boxed.flatten(1).any(dim=1))
            # More than a third of a box is the thing.
            assert float(mask.sum() / boxed.sum().clamp(min=1)) > 0.33 or not bool(boxed.any())
        assert np.array_equal(truth.masks["head"].numpy(), drawn["head"][taken, 8:72, 8:72])


def test_nothing_is_marked_where_there_is_no_box(root):
    """A hand of which the crop leaves less than a quarter has no box, and no mask."""
    close, absent = data_of(root, 20), 0
    for clip in close.clips("train"):
        truth = close.truth(clip, masks=True)
        drawn = clip_masks(close.cabin, int(clip.group[1:]), close.class_names[clip.label], 0, 80, 80)
        hands = (drawn["right_hand"] | drawn["left_hand"])[uniform_indices(8, 4), 30:50, 30:50]
        for name, mask in truth.masks.items():
            with_box = {box.frame for box in truth.boxes if box.name == name}
            assert {frame for frame in range(4) if bool(mask[frame].any())} <= with_box
        absent += int((hands & ~truth.masks["hand"].numpy()).sum())
    assert absent > 0


def test_masks_are_drawn_only_when_asked_for(cabin, monkeypatch):
    monkeypatch.setattr("datamodules.synthetic_cabin.clip_masks", None)
    assert cabin.truth(cabin.clips("train")[0]).masks == {}
