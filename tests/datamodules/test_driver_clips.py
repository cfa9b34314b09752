from collections import defaultdict

import pytest

from datamodules import drive_and_act, driver_clips, ucf101
from datamodules.driver_clips import DriverClips


@pytest.fixture
def make(tmp_path):
    """Write a CSV (and empty files for its videos) and return the data module."""

    def make(text, files=("a.avi", "b.avi", "c.avi", "d.avi"), **options):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        (tmp_path / "clips.csv").write_text(text, encoding="utf-8-sig")
        return DriverClips(str(tmp_path), **options)

    return make


THREE = "video,label,subject\na.avi,x,s1\nb.avi,y,s1\nc.avi,x,s2\nd.avi,y,s3\n"


def test_reads_a_csv(driver_root):
    data = DriverClips(str(driver_root), frames=4, size=32)
    assert data.class_names == ["drinking", "driving", "texting"]
    assert data.num_classes == 3
    assert [len(data.clips(split)) for split in ("train", "val", "test")] == [6, 3, 3]
    clip = data.clips("val")[1]
    assert (clip.sample_id, clip.label, clip.group, clip.split) == ("cleo/driving.avi", 1, "cleo", "val")
    assert clip.path == str(driver_root / "cleo" / "driving.avi")
    assert (clip.start, clip.end) == (None, None)


def test_given_classes_fix_the_labels(driver_root):
    data = DriverClips(str(driver_root), classes=["texting", "drinking", "driving"])
    assert data.class_names == ["texting", "drinking", "driving"]
    assert data.clips("train")[0].label == 1


def test_parts_of_a_video(make):
    data = make(
        "video,label,subject,start,end,split\n"
        "a.avi,x,s1,0,1.5,train\na.avi,x,s1,1.5,,train\na.avi,x,s1,,2,train\nb.avi,x,s1,,,train\n"
    )
    assert [(c.sample_id, c.start, c.end) for c in data.clips("train")] == [
        ("a.avi#0-1.5", 0.0, 1.5),
        ("a.avi#1.5-", 1.5, None),
        ("a.avi#-2", None, 2.0),
        ("b.avi", None, None),
    ]


def test_split_is_made_where_the_csv_has_none(make):
    rows = ["video,label,subject"] + [f"{s}_{c}.avi,{c},s{s}" for s in range(20) for c in "xyz"]
    files = [row.split(",")[0] for row in rows[1:]]
    data = make("\n".join(rows), files)
    assert [len(data.clips(split)) for split in ("train", "val", "test")] == [42, 9, 9]
    subjects = defaultdict(set)
    for split in ("train", "val", "test"):
        assert {clip.label for clip in data.clips(split)} == {0, 1, 2}
        for clip in data.clips(split):
            subjects[clip.group].add(split)
    assert all(len(splits) == 1 for splits in subjects.values())
    again = make("\n".join([rows[0], *reversed(rows[1:])]), files)
    assert {c.sample_id for c in again.clips("val")} == {c.sample_id for c in data.clips("val")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label,subject,camera\na.avi,x,s1,2\n", r"unknown column\(s\) 'camera'. Expected, .* video"),
        ("video,label\na.avi,x\n", r"missing column\(s\) 'subject'"),
        ("video;label;subject\na.avi;x;s1\n", "separated by commas"),
        ("video,label,subject,label\na.avi,x,s1,x\n", r"repeated column\(s\) 'label'"),
        ("", "an empty file"),
        ("video,label,subject\n", "a header only"),
        ("video,label,subject\na.avi,x\n", "line 2: expected 3 values"),
        ("video,label,subject\na.avi,x,s1\nb.avi,,s1\n", "line 3: expected a value for label"),
        ("video,label,subject,split\na.avi,x,s1,train\nb.avi,x,s1,test\n", "1 are in several .s1 in test and train"),
        ("video,label,subject,split\na.avi,x,s1,training\n", "line 2: expected a split out of train, val, test"),
        ("video,label,subject,split\na.avi,x,s1,train\na.avi,x,s1,train\n", "'a.avi' is listed twice"),
        ("video,label,subject,split\na.avi,x,s1,train\nb.avi,y,s2,test\n", "found none for y"),
        ("video,label,subject,start\na.avi,x,s1,soon\nb.avi,x,s2,\nc.avi,x,s3,\n", "line 2: expected start in seconds"),
        ("video,label,subject,start,end\na.avi,x,s1,2,1\nb.avi,x,s2,,\nc.avi,x,s3,,\n", "line 2: expected 0 <="),
        ("video,label,subject,end\na.avi,x,s1,nan\nb.avi,x,s2,\nc.avi,x,s3,\n", "line 2: expected 0 <="),
        ("video,label,subject\na.avi,x,s1\nb.avi,x,s2\n", "at least 3 subjects"),
    ],
)  # fmt: skip
def test_bad_csv(make, text, message):
    with pytest.raises(ValueError, match=message):
        make(text).class_names


def test_unknown_label_and_empty_class(make):
    with pytest.raises(ValueError, match=r"unknown label\(s\) y. Expected one of x, z"):
        make(THREE, classes=["x", "z"]).num_classes
    with pytest.raises(ValueError, match="training clips for each of the 3 classes, found none for z"):
        make(THREE, classes=["x", "y", "z"]).num_classes
    with pytest.raises(ValueError, match="x more than once"):
        make(THREE, classes=["x", "y", "x"]).num_classes


def test_missing_files(make, tmp_path):
    rows = "".join(f"no{i}.avi,x,s{i}\n" for i in range(7))
    with pytest.raises(
        FileNotFoundError, match=r"8 videos, of which 7 do not exist in .*: no0.avi, .*, no4.avi, \.\.\."
    ):
        make("video,label,subject\na.avi,x,s9\n" + rows).clips("train")
    with pytest.raises(FileNotFoundError, match=r"does not exist. Set data.root"):
        DriverClips(str(tmp_path / "nowhere")).clips("train")
    with pytest.raises(FileNotFoundError, match=r"does not exist. Set data.annotations"):
        DriverClips(str(tmp_path), annotations=str(tmp_path / "other.csv")).clips("train")


def test_annotations_elsewhere(make, tmp_path):
    make(THREE)
    other = tmp_path / "lists" / "mine.csv"
    other.parent.mkdir()
    other.write_text(THREE)
    assert DriverClips(str(tmp_path), annotations=str(other)).num_classes == 2


@pytest.mark.parametrize(
    "read", [driver_clips.read_rows, drive_and_act.read_chunks, lambda path: list(ucf101._lines(path))]
)
def test_a_list_in_another_encoding_is_named(tmp_path, read):
    path = tmp_path / "clips.csv"
    path.write_bytes(",".join([*driver_clips.REQUIRED, *drive_and_act.COLUMNS]).encode() + b"\ncaf\xe9.mp4,x,s1\n")
    with pytest.raises(ValueError, match=r"clips\.csv: expected text in UTF-8, got byte 0xe9"):
        read(path)
