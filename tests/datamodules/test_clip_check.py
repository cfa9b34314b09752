"""What counts as a finding, on contents made up by hand; reading the contents, on files."""

import hashlib
import itertools
import os
import random
from pathlib import Path

import pytest

from datamodules.clip_check import Contents, Finding, examine, findings
from datamodules.data_check import write_findings
from datamodules.dataset import SPLITS
from sightline.video.clips import Clip
from tests.sightline.video.damaged_files import change_bytes, moving_scene
from tests.sightline.video.video_files import truncate, write_video

CLASSES = ("Archery", "HandstandPushups")


def clip(name, split="train", label=0, path=None, group=None, **part):
    return Clip(name, path or f"/data/{name}", label, group or f"group of {name}", split=split, **part)


def judge(contents, stated=lambda clip: {}, min_frames=16, classes=CLASSES):
    """The findings about clips with these contents, as (kind, clip, other)."""
    found = findings(list(contents), {c.sample_id: held for c, held in contents.items()}, classes, stated, min_frames)
    return [(f.kind, f.clip.sample_id, f.other.sample_id if f.other else None) for f in found], found


def holds(digest="x", start=0.0, end=4.0, frames=100, reason=""):
    return Contents(frames, start, end, digest, reason)


def test_nothing_wrong():
    assert judge({clip("a"): holds("1"), clip("b", "test"): holds("2")}) == ([], [])


def test_unreadable_and_short_ones():
    names, found = judge(
        {clip("a"): holds("1", frames=15), clip("b"): Contents(reason="cut short"), clip("c"): holds("3", frames=16)}
    )
    assert names == [("unreadable", "b", None), ("too_short", "a", None)]
    assert [f.reason for f in found] == ["cut short", "expected at least 16 frames, found 15"]


def test_damaged_ones_are_still_clips():
    names, found = judge({clip("a"): Contents(100, 0.0, 4.0, "1", damage="frame 3"), clip("b", "test"): holds("1")})
    assert names == [("damaged", "a", None), ("leaking", "b", "a")]
    assert found[0].reason == "frame 3"


def test_classes_that_look_like_one():
    classes = (
        "Drinking",
        "eating",
        "drinking",
        "phone  call",
        "eat",
        "Phonecall",
        "unused",
        "UNUSED",
        "Große",
        "GROSSE",
    )
    clips = {clip(str(label), label=label): holds(str(label)) for label in range(len(classes)) if label != 6}
    names, found = judge({**clips, clip("again", label=2): holds("again")}, classes=classes)
    assert names == [("alike_classes", "2", "0"), ("alike_classes", "5", "3"), ("alike_classes", "9", "8")]
    assert found[0].reason == "its class and another differ only in case or white space: 'drinking' and 'Drinking'"


def test_mislabelled_ones_without_regard_to_case():
    stated = {
        "a": {"folder": "archery", "file name": "Archery"},
        "b": {"folder": "Archery", "file name": "HandStandPushups"},
        "c": {"folder": "HandstandPushups", "file name": "HandStandPushups"},
        "d": {"folder": "Archery", "file name": "Archery"},
    }
    clips = {clip(name, label=name in "cd"): holds(name) for name in "abcd"}
    names, found = judge(clips, lambda clip: stated[clip.sample_id])
    assert names == [("mislabelled", "b", None), ("mislabelled", "d", None)]
    assert found[0].reason == "labelled Archery, but its file name says HandStandPushups"
    assert found[1].reason == "labelled HandstandPushups, but its folder says Archery and its file name says Archery"


def test_duplicates_in_one_split_name_the_first():
    names, found = judge({clip("a"): holds(), clip("b"): holds(), clip("c", label=1): holds(), clip("d"): holds("y")})
    assert names == [("duplicated", "b", "a"), ("duplicated", "c", "a")]
    assert found[0].reason == "same content as a"
    assert found[1].reason == "same content as a, labelled HandstandPushups here and Archery there"


def test_same_content_in_two_splits_leaks():
    names, found = judge({clip("a"): holds(), clip("b", "test"): holds(), clip("c", "val"): holds()})
    assert names == [("leaking", "b", "a"), ("leaking", "c", "a")]
    assert found[0].reason == "same content as a of the train split"


def test_what_cannot_be_read_is_no_duplicate():
    names, _ = judge({clip("a"): holds(reason="empty"), clip("b", "test"): holds(reason="empty")})
    assert names == [("unreadable", "a", None), ("unreadable", "b", None)]


def test_parts_of_one_file():
    path = "/data/long.mp4"
    parts = {
        clip("a", path=path): holds("x", 0.0, 2.0),
        clip("b", path=path): holds("", 1.0, 3.0),  # overlapping windows of one split are usual
        clip("c", "val", path=path): holds("", 3.0, 5.0),  # begins where b ends
        clip("d", "test", path=path): holds("", 4.9, 6.0),
        clip("e", path=path): holds("", 0.0, 2.0),
    }
    names, found = judge(parts)
    assert names == [("duplicated", "e", "a"), ("leaking", "d", "c")]
    assert found[1].reason == "overlaps with c of the val split"


def test_a_copy_of_a_file_leaks_by_its_parts():
    names, _ = judge(
        {
            clip("a", path="/data/one.mp4"): holds("x", 0.0, 2.0),
            clip("b", "test", path="/data/copy.mp4"): holds("x", 1.0, 3.0),
            clip("c", "test", path="/data/copy.mp4"): holds("", 2.0, 3.0),
        }
    )
    assert names == [("leaking", "b", "a")]


@pytest.mark.parametrize("seed", range(20))
def test_leaks_against_the_obvious_way(seed):
    chance = random.Random(seed)
    clips = {}
    for number in range(30):
        start = chance.randrange(40)
        end = start + chance.randrange(1, 6)
        clips[clip(str(number), chance.choice(SPLITS), path="/data/x")] = holds("", float(start), float(end))
    expected = set()
    for one, other in itertools.permutations(clips, 2):
        a, b = clips[one], clips[other]
        if SPLITS.index(other.split) < SPLITS.index(one.split) and a.start < b.end and b.start < a.end:
            expected.add(one.sample_id)
    _, found = judge(clips)
    leaks = [f for f in found if f.kind == "leaking"]
    assert sorted(f.clip.sample_id for f in leaks) == sorted(expected)
    for leak in leaks:
        a, b = clips[leak.clip], clips[leak.other]
        assert a.start < b.end
        assert b.start < a.end


def test_a_group_in_two_splits_leaks():
    names, found = judge(
        {
            clip("a", group="anna"): holds("1"),
            clip("b", "test", group="anna"): holds("2"),
            clip("c", "test", group="anna"): holds("3"),
            clip("d", "test", group="ben"): holds("4"),
        }
    )
    assert names == [("leaking", "b", "a")]
    assert found[0].reason == "its group anna is in the train split too"


def test_a_folder_whose_name_is_no_utf8_is_listed(tmp_path):
    write_findings([Finding("unreadable", clip("a", path="/caf\udce9/a"), "empty")], tmp_path / "out.csv")
    assert r"/caf\udce9/a,empty" in (tmp_path / "out.csv").read_text(encoding="utf-8")


class TestExamine:
    def test_whole_file(self, tmp_path):
        path = write_video(tmp_path / "a.avi", num_frames=20)
        held = examine((clip("a", path=str(path)), True))
        assert (held.frames, held.start, held.reason) == (20, 0.0, "")
        assert held.end == pytest.approx(0.8)
        assert held.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert examine((clip("a", path=str(path)), False)).digest == ""

    def test_parts(self, tmp_path):
        path = str(write_video(tmp_path / "a.mp4", num_frames=30, codec="h264", b_frames=2))
        by_frames = examine((clip("a", path=path, frame_range=(10, 15)), False))
        by_times = examine((clip("b", path=path, start=0.4, end=0.6), False))
        assert by_frames == by_times
        assert (by_frames.frames, by_frames.start, by_frames.end) == (5, pytest.approx(0.4), pytest.approx(0.6))
        behind = examine((clip("c", path=path, frame_range=(25, 35)), False))
        assert "found 30 frames" in behind.reason

    def test_what_cannot_be_read(self, tmp_path):
        cut = truncate(write_video(tmp_path / "cut.avi", num_frames=40), 0.8)
        assert "truncated" in examine((clip("a", path=str(cut)), True)).reason
        missing = examine((clip("b", path=str(tmp_path / "none.avi")), True))
        assert missing == Contents(reason="the file cannot be opened, then: No such file or directory")

    def test_hidden_errors_of_the_clips_own_part(self, tmp_path):
        clean = write_video(tmp_path / "clean.mp4", images=moving_scene(48), codec="libx264", gop=12)
        content = clean.read_bytes()
        for seed in range(100):  # one that concerns the last frames alone
            path = change_bytes(tmp_path / "a.mp4", clean, 1, seed)
            late = examine((clip("a", path=str(path), frame_range=(36, 48)), False))
            early = examine((clip("a", path=str(path), frame_range=(0, 12)), False))
            if late.damage and not early.reason:
                break
        assert path.read_bytes() != content
        assert (late.frames, late.reason) == (12, "")
        assert "errors were hidden in frame(s)" in late.damage
        assert early.damage == ""
        whole = examine((clip("a", path=str(path)), True))
        assert (whole.frames, whole.reason, bool(whole.damage), len(whole.digest)) == (48, "", True, 64)

    def test_what_is_no_file_does_not_hang(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("builtins.open", lambda *a, **k: pytest.fail("opened"))
            held = examine((clip("a", path=str(tmp_path / "pipe.mp4")), True))
        assert held.reason == "the file cannot be opened: expected a regular file, got a pipe"

    def test_damage_in_the_middle(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", num_frames=60, codec="h264", gop=60)
        content = bytearray(path.read_bytes())
        begin = content.index(b"mdat") + 4
        end = len(content) if content.index(b"moov") < begin else content.index(b"moov") - 4
        hole = begin + (end - begin) * 3 // 5
        content[hole : hole + (end - begin) // 8] = bytes((end - begin) // 8)
        Path(path).write_bytes(bytes(content))
        assert examine((clip("a", path=str(path)), True)).reason
