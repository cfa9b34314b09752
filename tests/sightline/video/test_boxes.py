"""Boxes from a CSV and from the synthetic cabin, in the frames and pixels of a model's input."""

from dataclasses import replace

import numpy as np
import pytest

from datamodules.cabin.files import clip_boxes, perform, render_clip
from datamodules.synthetic_cabin import SyntheticCabin
from sightline.types import Box, ClipTruth
from sightline.video.boxes import in_input, read_boxes, seen_frames, video_truth
from sightline.video.clips import Clip, ClipSettings, load_clip
from sightline.video.sampling import uniform_indices
from sightline.video.transforms import resize_short_side
from tests.sightline.video.video_files import numbered_frame, write_video

HEADER = "sample_id,name,frame,x0,y0,x1,y1\n"
SETTINGS = ClipSettings(frames=4, size=32, short_side=32)


def clip_of(path, **part):
    return Clip("a", str(path), 0, "g", split="test", **part)


# ------------------------------------------------------------------ the CSV


def test_rows_are_read_by_clip(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER + "a.mp4,hand,3,1.5,2,10,20\nb.mp4, hand ,0,0,0,1,1\n\na.mp4,action,4,,,,\n")
    assert read_boxes(path) == {
        "a.mp4": [Box("hand", 3, 1.5, 2.0, 10.0, 20.0), Box("action", 4, 0, 0, 0, 0)],
        "b.mp4": [Box("hand", 0, 0.0, 0.0, 1.0, 1.0)],
    }
    path.write_text("name,x0,y0,x1,y1,frame,sample_id\nhand,1,2,3,4,5,a\n")
    assert read_boxes(path) == {"a": [Box("hand", 5, 1.0, 2.0, 3.0, 4.0)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected the columns sample_id,name,.*got none"),
        ("sample_id,frame\n", r"expected the columns .*got sample_id,frame"),
        (HEADER, "got a header only"),
        (HEADER + "a,hand,0,1,2,3\n", r"line 2: expected 7 values.*got 6"),
        (HEADER + "a,hand,0,1,2,3,4\na,hand,-1,1,2,3,4\n", r"line 3: expected frame as an index from 0, got '-1'"),
        (HEADER + "a,hand,1.5,1,2,3,4\n", r"frame as an index from 0, got '1\.5'"),
        (HEADER + "a,hand,0,1,2,,4\n", r"in pixels, got 1,2,,4"),
        (HEADER + "a,hand,0,3,2,1,4\n", r"expected x0 < x1 and y0 < y1, got 3,2,1,4"),
        (HEADER + "a,hand,0,1,2,nan,4\n", "expected x0 < x1"),
        (HEADER + "a,action,0,1,2,3,4\n", "a row named action says when, not where"),
        (HEADER + ",hand,0,1,2,3,4\n", "expected a sample_id and a name"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(tmp_path, text, message):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv, which does not exist\. Columns: sample_id"):
        read_boxes(tmp_path / "none.csv")


# ------------------------------------------------------------------ from the video to the model's input


def test_boxes_are_scaled_shifted_and_clipped_by_hand():
    # 200 x 100 (width x height) to 64 x 32, of which the middle 32 columns (16..47) stay: x' = .32 x - 16, y' = .32 y.
    boxes = [
        Box("hand", 7, 100, 50, 125, 75),
        Box("head", 7, 0, 0, 100, 100),  # from -16 to 16: half of it is left
        Box("bag", 7, 0, 0, 60, 100),  # from -16 to 3.2: a sixth is left
        Box("hand", 8, 100, 50, 125, 75),  # a frame that is not seen
        Box("cup", 2, 180, 0, 200, 20),  # beyond the right edge
        Box("action", 2, 0, 0, 0, 0),
        Box("action", 3, 0, 0, 0, 0),
    ]
    truth = in_input(boxes, [2, 2, 4, 7], 100, 200, SETTINGS)
    assert truth.acting == (True, True, False, False)
    assert [(box.name, box.frame) for box in truth.boxes] == [("hand", 3), ("head", 3)]
    assert truth.boxes[0][2:] == pytest.approx((16, 16, 24, 24))
    assert truth.boxes[1][2:] == pytest.approx((0, 0, 16, 32))
    assert in_input(boxes[:1], [7], 100, 200, SETTINGS).acting == ()


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (37, 91), (91, 37), (33, 33), (32, 57)])
def test_a_marked_patch_is_where_its_box_says_after_decoding_resizing_and_cropping(tmp_path, size):
    """The box, taken through the geometry alone, finds the patch in the pixels that the data module really gives."""
    height, width = size
    y, x, half = height // 2 - 3, width // 2 + 2, 6
    image = np.zeros((height + height % 2, width + width % 2, 3), np.uint8)
    image[y - half : y + half, x - half : x + half] = 255
    path = write_video(tmp_path / "v.mkv", images=[image] * 8)
    settings = replace(SETTINGS, antialias=True)
    box = Box("mark", 5, x - half, y - half, x + half, y + half)
    truth = video_truth(clip_of(path), [box], settings)
    taken = uniform_indices(8, 4)
    assert [box.frame for box in truth.boxes] == [taken.index(5)]
    found = load_clip(clip_of(path), settings)[0, taken.index(5)].numpy() > 127
    rows, columns = np.nonzero(found)
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    # Thresholding an edge that lies within a pixel moves it by up to half a pixel.
    assert truth.boxes[0][2:] == pytest.approx(seen, abs=0.75)


@pytest.mark.parametrize(("height", "width"), [(37, 91), (91, 37), (33, 33), (101, 54)])
def test_odd_sizes_are_resized_as_the_transform_does(height, width):
    resized = resize_short_side(np.zeros((height, width, 3), np.uint8), 40).shape
    left, top = max(resized[1] - 40, 0) // 2, max(resized[0] - 40, 0) // 2
    settings = replace(SETTINGS, size=40, short_side=40)
    [corner] = in_input([Box("c", 0, 0, 0, width / 2, height / 2)], [0], height, width, settings).boxes
    assert corner[4:] == pytest.approx((resized[1] / 2 - left, resized[0] / 2 - top))


@pytest.mark.parametrize(
    "part", [{}, {"start": 0.4, "end": 1.2}, {"start": 0.8}, {"end": 0.6}, {"frame_range": (7, 30)}]
)
def test_the_frames_seen_are_those_that_the_data_module_reads(tmp_path, part):
    path = write_video(tmp_path / "v.mkv", num_frames=40)
    taken, height, width = seen_frames(clip_of(path, **part), SETTINGS)
    assert (height, width) == (48, 64)
    settings = ClipSettings(frames=4, size=48, short_side=48)
    read = load_clip(clip_of(path, **part), settings).permute(1, 2, 3, 0).numpy()
    # The crop cuts the outer blocks in half, so numbers are compared as pictures: another one differs by a block, an
    # eighth of the picture or more.
    for index, frame in zip(taken, read, strict=True):
        assert np.abs(frame.astype(int) - numbered_frame(index)[:, 8:56]).mean() < 5


# ------------------------------------------------------------------ the synthetic cabin


@pytest.fixture(scope="module")
def cabin(tmp_path_factory):
    data = SyntheticCabin(
        root=str(tmp_path_factory.mktemp("cabin")), actions=["texting-on-phone", "reach-objects"], subjects=6,
        clips_per_action=1, clip_frames=8, clip_size=48, render_workers=1,
        frames=4, size=32, short_side=40, num_workers=0,
    )  # fmt: skip
    data.prepare_data()
    return data


def test_the_cabins_boxes_are_those_of_the_rendering_after_resizing_and_cropping(cabin):
    taken, scale, shift = uniform_indices(8, 4), 40 / 48, 4
    for clip in cabin.clips("train")[:3]:
        truth = cabin.truth(clip)
        subject, action = int(clip.group[1:]), cabin.class_names[clip.label]
        rendered = render_clip(cabin.cabin, subject, action, 0)[1]
        heads = [box for box in rendered if box.object == "head"]
        found = [box for box in truth.boxes if box.name == "head"]
        assert [box.frame for box in found] == [0, 1, 2, 3]
        for box in found:
            before = heads[taken[box.frame]]
            expected = [min(max(edge * scale - shift, 0), 32) for edge in before[3:7]]
            assert box[2:] == pytest.approx(expected)
        assert {box.name for box in truth.boxes} == {"head", "hand", "object"}
        hands = sum(box.name == "hand" for box in truth.boxes)
        shown = [box for box in rendered if box.object.endswith("_hand") and box.visible and box.frame in taken]
        assert 4 < hands <= len(shown)  # both hands, but where the crop cuts one off
        acting = perform(cabin.cabin, subject, action, 0)[0].acting > 0.5
        assert truth.acting == tuple(acting[taken])


def test_reaching_begins_and_ends_within_the_clip_and_boxes_need_no_pictures(cabin):
    clips = [clip for split in ("train", "val", "test") for clip in cabin.clips(split)]
    reaching = [cabin.truth(clip).acting for clip in clips if cabin.class_names[clip.label] == "reach-objects"]
    assert all(any(acting) and not all(acting) for acting in reaching)
    assert clip_boxes(cabin.cabin, 0, "reach-objects", 0) == render_clip(cabin.cabin, 0, "reach-objects", 0)[1]


def test_other_data_know_nothing_by_themselves(cabin):
    assert super(SyntheticCabin, cabin).truth(cabin.clips("train")[0]) is None
    assert ClipTruth() == ClipTruth((), ())
