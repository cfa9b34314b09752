import csv
import logging

import pytest

from datamodules import DriveAndAct
from datamodules.drive_and_act import COLUMNS
from datamodules.drive_and_act_layout import EVALUATED, UNEVALUATED, VIEWS
from sightline.video.clips import ClipSettings, load_clip
from tests.sightline.video.video_files import numbers_of, write_video

PEOPLE = {"train": (1, 2), "val": (14,), "test": (5,)}
SITTING = EVALUATED.index("sitting_still")


def write_list(path, rows, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def recording(person, suffix="ids_1"):
    return f"vp{person}/run1_2018-05-29.{suffix}"


def rows_of(person, suffix="ids_1", activities=EVALUATED):
    """One chunk of four frames for each activity, and for sitting still a segment of three chunks."""
    name = recording(person, suffix)
    rows = [[person, name, number, number, number + 4, label, 0] for number, label in enumerate(activities)]
    return [*rows, *([person, name, 99, 40 + 5 * c, 45 + 5 * c, "sitting_still", c] for c in range(3))]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One recording of 60 frames for each of four people, seen by the inner mirror's camera."""
    root = tmp_path_factory.mktemp("drive_and_act")
    for person in (1, 2, 5, 14):
        write_video(root / "inner_mirror" / f"{recording(person)}.mp4", num_frames=60, codec="h264", b_frames=2, fps=30)
    return root


@pytest.fixture
def lists(tmp_path):
    folder = tmp_path / "activities_3s" / "inner_mirror"
    for part, people in PEOPLE.items():
        rows = [row for person in people for row in rows_of(person)]
        write_list(folder / f"midlevel.chunks_90.split_0.{part}.csv", rows)
    rows = [row for person in (1, 2, 5, 14) for row in rows_of(person, activities=(*EVALUATED, *UNEVALUATED))]
    write_list(folder / "midlevel.chunks_90.csv", rows)
    return folder


@pytest.fixture
def make(videos, lists, tmp_path):
    def make(**options):
        options = {
            "root": str(videos),
            "annotations": str(tmp_path),
            "frames": 4,
            "size": 32,
            "short_side": 48,
        } | options
        return DriveAndAct(**{"num_workers": 0, "batch_size": 4} | options)

    return make


def test_classes_are_fixed():
    assert len(EVALUATED) == 34
    assert len({*EVALUATED, *UNEVALUATED}) == 39


def test_reads_the_lists(make, videos):
    data = make()
    assert data.class_names == list(EVALUATED)
    assert [len(data.clips(split)) for split in ("train", "val", "test")] == [74, 37, 37]
    clip = data.clips("test")[-2]
    assert clip.sample_id == "vp5/run1_2018-05-29.ids_1#99.1@45-50"
    assert clip.segment == "vp5/run1_2018-05-29.ids_1#99"
    assert clip.path == str(videos / "inner_mirror" / "vp5" / "run1_2018-05-29.ids_1.mp4")
    assert (clip.label, clip.group, clip.frame_range) == (SITTING, "vp5", (45, 50))
    assert (clip.start, clip.end) == (None, None)
    table = data.split_table()
    assert table["sample_id"].is_unique
    segments = table.groupby("segment")["sample_id"].size()
    assert segments[clip.segment] == 3
    assert len(segments) == 4 * 35
    assert table.groupby("group")["split"].nunique().max() == 1


def test_the_end_is_exclusive_and_numbers_are_those_of_the_video(make):
    clip = make().clips("test")[-2]
    settings = ClipSettings(frames=5, size=48, short_side=48)
    assert numbers_of(load_clip(clip, settings).permute(1, 2, 3, 0).numpy()) == [45, 46, 47, 48, 49]


def test_short_chunks_repeat_frames(make):
    clip = make().clips("test")[7]
    assert clip.frame_range == (7, 11)
    settings = ClipSettings(frames=8, size=48, short_side=48)
    frames = load_clip(clip, settings).permute(1, 2, 3, 0).numpy()
    assert numbers_of(frames) == [7, 7, 8, 8, 9, 9, 10, 10]


def test_a_chunk_beyond_the_video_is_an_unreadable_clip(make, lists):
    rows = rows_of(5)
    rows[-1][4] = 61  # the video has 60 frames
    write_list(lists / "midlevel.chunks_90.split_0.test.csv", rows)
    data = make()
    batch = next(iter(data.evaluation_loader(data.clips("test")[-2:])))
    assert len(batch["label"]) == 1
    [(name, reason)] = batch["unreadable"]
    assert name.endswith("#99.2@50-61")
    assert "50..60" in reason
    assert "60 frames" in reason


def test_digest_depends_on_the_frames(make, lists):
    before = make().data_hash("test")
    assert make().data_hash("test") == before
    rows = rows_of(5)
    rows[0][3] = 1
    write_list(lists / "midlevel.chunks_90.split_0.test.csv", rows)
    assert make().data_hash("test") != before


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_in_every_form_that_is_about(make, lists, ending, mark):
    expected = make().clips("test")
    path = lists / "midlevel.chunks_90.split_0.test.csv"
    lines = path.read_text().split("\n")
    # Blank lines, and spaces after the commas (none of the class names holds a comma).
    text = ending.join([lines[0].replace(",", ", "), "", *(line.replace(",", ", ") for line in lines[1:]), ""])
    path.write_bytes((mark + text).encode())
    assert make().clips("test") == expected
    assert "looking_or_moving_around (e.g. searching)" in make().class_names


def test_every_split_has_its_own_lists(make, lists):
    people = {
        0: PEOPLE,
        1: {"train": (1, 14), "val": (2,), "test": (5,)},
        2: {"train": (5, 2), "val": (1,), "test": (14,)},
    }
    for split, parts in people.items():
        for part, persons in parts.items():
            rows = [row for person in persons for row in rows_of(person)]
            write_list(lists / f"midlevel.chunks_90.split_{split}.{part}.csv", rows)
    for split, parts in people.items():
        data = make(split=split)
        for part, persons in parts.items():
            assert {clip.group for clip in data.clips(part)} == {f"vp{person}" for person in persons}


def test_a_missing_part_is_told(make, lists, caplog):
    (lists / "midlevel.chunks_90.split_0.val.csv").unlink()
    with caplog.at_level(logging.WARNING):
        data = make()
        assert data.clips("val") == []
    assert "has no midlevel.chunks_90.split_0.val.csv" in caplog.text


@pytest.mark.parametrize(
    "level", [".", "activities_3s", "iccv_activities_3s/activities_3s", "data/activities_3s", "data"]
)
def test_extra_levels_above_the_lists(make, lists, tmp_path, level):
    other = tmp_path / "other" / level
    other.mkdir(parents=True, exist_ok=True)
    lists.rename(other / "inner_mirror")
    assert len(make(annotations=str(tmp_path / "other")).clips("test")) == 37
    assert len(make(annotations=str(other / "inner_mirror")).clips("test")) == 37


def test_an_extra_level_above_the_videos(make, videos, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "data").symlink_to(videos)
    assert len(make(root=str(tmp_path / "root")).clips("test")) == 37


class TestWithoutSplits:
    def test_serves_prediction_with_the_34(self, make, caplog):
        with caplog.at_level(logging.WARNING):
            data = make(split=None)
            assert data.class_names == list(EVALUATED)
        assert "Left out 20 chunks" in caplog.text
        assert (len(data.clips("train")), len(data.clips("test"))) == (0, 4 * 37)

    def test_has_39_classes_on_request(self, make):
        data = make(split=None, classes="all")
        assert data.class_names == [*EVALUATED, *UNEVALUATED]
        assert len(data.clips("test")) == 4 * 42

    def test_is_not_trained_on(self, make):
        for data in (make(split=None), make(split=None, classes="all")):
            with pytest.raises(ValueError, match=r"Set data\.split to 0, 1 or 2"):
                data.train_dataloader()
            with pytest.raises(ValueError, match="no training clips and serves prediction and transfer only"):
                data.setup("fit")
            data.setup("predict")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": 3}, r"Expected data\.split 0, 1 or 2, or null"),
        ({"level": "tasklevel"}, r"Expected data\.level midlevel"),
        ({"classes": "39"}, r"Expected data\.classes evaluated, all"),
        ({"classes": "all"}, r"data\.split null with data\.classes all, got split 0: 5 of the 39 .*closing_backpack"),
        ({"classes": ["x", "y", "x"]}, "got x more than once"),
        ({"classes": []}, "got an empty list"),
        ({"view": "mirror"}, r"one of inner_mirror, .*or a folder of .*, got 'mirror'\. Folders there: inner_mirror"),
        ({"classes": ["sitting_still"]}, r"train\.csv, line 2: unknown activity 'closing_bottle'\. Expected"),
    ],
)  # fmt: skip
def test_bad_options(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options).clips("train")


def test_folders_that_are_not_there(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere, which does not exist. Set data\.root"):
        make(root=str(tmp_path / "nowhere")).clips("train")
    with pytest.raises(FileNotFoundError, match=r"nowhere, which does not exist. Set data\.annotations"):
        make(annotations=str(tmp_path / "nowhere")).clips("train")
    with pytest.raises(FileNotFoundError, match=r"view ceiling in .*ceiling or .*data/ceiling, found no such folder"):
        make(view="ceiling").clips("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Looked in .*/empty/activities_3s/inner_mirror, .*iccv_activities_3s"):
        make(annotations=str(tmp_path / "empty")).clips("train")
    with pytest.raises(FileNotFoundError, match=r"split_2\.train\.csv and .*found midlevel\.chunks_90\.csv, .*split_0"):
        make(split=2).clips("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((5, "whistling"), "line 2: unknown activity 'whistling'. Expected one of closing_bottle, .* Correct the list"),
        ((5, ""), "line 2: expected a value for activity, got none"),
        ((3, "soon"), "line 2: expected whole numbers 0 <= frame_start < frame_end .* got soon and 4"),
        ((4, 0), "line 2: expected whole numbers .* got 0 and 0"),
        ((0, 14), r"1 are in several .vp14 in train and val.; see .*train\.csv, line 2 and .*val\.csv, line 2"),
        ((1, "vp1/run1.kinect_color"), r"line 2: expected recordings of the view inner_mirror, got .* of kinect_color"),
    ],
)
def test_bad_rows(make, lists, change, message):
    column, value = change
    rows = rows_of(2)
    rows[0][column] = value
    write_list(lists / "midlevel.chunks_90.split_0.train.csv", rows)
    with pytest.raises(ValueError, match=message):
        make().clips("train")


def test_a_chunk_that_is_listed_twice(make, lists):
    write_list(lists / "midlevel.chunks_90.split_0.train.csv", [*rows_of(2), rows_of(2)[0]])
    with pytest.raises(ValueError, match=r"vp2/run1_2018-05-29\.ids_1#0\.0@0-4' is listed twice"):
        make().clips("train")


def test_bad_files(make, lists):
    path = lists / "midlevel.chunks_90.split_0.test.csv"
    write_list(path, [row[:6] for row in rows_of(5)], COLUMNS[:6])
    with pytest.raises(ValueError, match=r"test\.csv: missing column\(s\) chunk_id\. Expected, .* got participant_id"):
        make().clips("test")
    path.write_text("")
    with pytest.raises(ValueError, match="an empty file"):
        make().clips("test")
    write_list(path, [])
    with pytest.raises(ValueError, match="a header only"):
        make().clips("test")


def test_missing_videos(make, lists):
    write_list(
        lists / "midlevel.chunks_90.split_0.test.csv", [row for person in range(5, 14) for row in rows_of(person)]
    )
    expected = (
        r"name 12 recordings, of which 8 do not exist in .*inner_mirror: vp6/run1_.*\.mp4, vp7/.*vp10/[^,]*, \.\.\."
    )
    with pytest.raises(FileNotFoundError, match=expected):
        make().clips("test")


def test_official_lists(shared_folder, tmp_path):
    source = shared_folder / "annotations" / "drive_and_act"
    for path in source.glob("*.csv"):
        for row in csv.DictReader(path.open()):
            video = tmp_path / "kinect_color" / f"{row['file_id']}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            video.touch()
    data = DriveAndAct(str(tmp_path), str(source), view="kinect_color")
    assert (len(data.clips("train")), len(data.clips("test"))) == (6642, 2222)
    assert {clip.label for clip in data.clips("test")} == set(range(34))
    assert {clip.group for clip in data.clips("train")} == {f"vp{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10, 12)}
    assert {clip.group for clip in data.clips("test")} == {"vp5", "vp11", "vp13"}
    # All chunks of a segment have its label.
    assert data.split_table().groupby("segment")["label"].nunique().max() == 1
    (tmp_path / "inner_mirror").mkdir()
    with pytest.raises(ValueError, match=r"of kinect_color\. Frame numbers hold for one view only"):
        DriveAndAct(str(tmp_path), str(source)).clips("train")


def test_other_recordings_in_this_layout(shared_folder, tmp_path):
    root, source = shared_folder / "clips" / "drive_and_act_like", shared_folder / "annotations" / "ceiling"
    options = {"view": "ceiling_view", "frames": 4, "size": 64, "num_workers": 0, "batch_size": 4}
    classes = ["active", "falled", "falling", "lying", "sit", "sitdown", "sleeping", "standup", "walk"]
    with pytest.raises(ValueError, match=r"unknown activity 'walk'.* or name the classes of other recordings"):
        DriveAndAct(str(root), str(source), **options).clips("train")
    # Its participants are clothes, and some are in both lists.
    with pytest.raises(ValueError, match=r"2 are in several .vp2 in train and val; vp5 in train and val."):
        DriveAndAct(str(root), str(source), classes=classes, **options).clips("train")
    for part, shift in (("train", 0), ("val", 100)):
        name = f"midlevel.chunks_90.split_0.{part}.csv"
        rows = [list(row.values()) for row in csv.DictReader((source / name).open())]
        write_list(tmp_path / name, [[int(row[0]) + shift, *row[1:]] for row in rows])
    data = DriveAndAct(str(root), str(tmp_path), classes=classes, **options)
    assert (len(data.clips("train")), len(data.clips("val"))) == (357, 148)
    batch = next(iter(data.evaluation_loader([data.clips("train")[0], data.clips("val")[2]])))
    assert batch["unreadable"] == []
    assert batch["clip"].shape == (2, 3, 4, 64, 64)
    assert batch["clip"].float().std() > 10


def test_views_have_different_suffixes():
    assert len(set(VIEWS.values())) == len(VIEWS) == 8
