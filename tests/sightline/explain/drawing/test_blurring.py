import numpy as np

from sightline.explain.drawing.blurring import blur_boxes
from sightline.types import Box


def noise(frames: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 40, 50, 3), dtype=np.uint8)


def test_only_boxes_change_and_nothing_can_be_told_in_them():
    frames = noise()
    before = frames.copy()
    boxes = [Box("head", frame, 10, 5, 30, 25) for frame in range(3)]
    blurred = blur_boxes(frames, boxes)
    assert np.array_equal(frames, before)
    outside = np.ones((40, 50), dtype=bool)
    outside[3:27, 8:32] = False  # a tenth of the box further on each side
    assert np.array_equal(blurred[:, outside], frames[:, outside])
    inside = blurred[:, 5:25, 10:30].astype(float)
    # Means of 8 x 8 pixels or so: the noise's deviation of 74 becomes about 74 / 8.
    assert inside.std(axis=(1, 2)).max() < 15 < frames[:, 5:25, 10:30].std(axis=(1, 2)).min()
    assert np.abs(np.diff(inside, axis=2)).max() < 10


def test_a_frame_without_a_box_takes_the_nearest_frames():
    frames = noise(4)
    blurred = blur_boxes(frames, [Box("head", 0, 0, 0, 10, 10), Box("head", 3, 30, 20, 50, 40)])
    changed = (blurred != frames).any(axis=-1)
    assert changed[1, :10, :10].mean() > 0.9
    assert not changed[1, 15:].any()
    assert changed[2, 20:, 30:].mean() > 0.9
    assert not changed[2, :15].any()


def test_boxes_at_the_edge_or_missing():
    frames = noise()
    assert np.array_equal(blur_boxes(frames, []), frames)
    blurred = blur_boxes(frames, [Box("head", 1, 49.2, 0, 50, 0.5), Box("head", 1, 60, 0, 70, 9)])
    assert (blurred != frames).any(axis=(0, 3)).sum() <= 2
