from types import SimpleNamespace

import pytest

from callbacks.galleries.clips import chosen_clips, evenly, file_stems
from sightline.video.clips import Clip


def data(labels: list[int]):
    clips = [Clip(f"clip{i}.mp4", "", label, "g") for i, label in enumerate(labels)]
    other = [Clip("other.mp4", "", 0, "g")]
    return SimpleNamespace(
        class_names=["a", "b", "c"], clips=lambda split: {"test": clips, "val": other}.get(split, [])
    )


def test_clips_are_spread_over_every_class():
    assert evenly(10, 1) == [5]
    assert evenly(10, 2) == [2, 7]
    assert evenly(2, 5) == [0, 1]
    assert evenly(10, 2, 0.0) == [0, 5]
    labels = [0] * 4 + [1] * 8
    # A quarter into the four clips of class 0, three quarters into the eight of class 1.
    assert chosen_clips(data(labels), "test", 1, None, None) == [1, 4 + 6]
    assert chosen_clips(data(labels), "test", 2, None, None) == [0, 2, 4 + 3, 4 + 7]
    assert chosen_clips(data(labels), "test", 4, None, 2) == [2, 4 + 5]
    assert chosen_clips(data(labels), "test", 99, None, None) == list(range(12))


def test_clips_of_some_classes_alone():
    assert chosen_clips(data([0, 1, 1, 0, 1]), "test", 9, None, None, ["b"]) == [1, 2, 4]
    with pytest.raises(ValueError, match=r"'d' is not a class of the data\. Its classes: a, b, c"):
        chosen_clips(data([0]), "test", 1, None, None, ["d"])
    with pytest.raises(ValueError, match="test split has no clips of c"):
        chosen_clips(data([0, 1]), "test", 1, None, None, ["c"])


def test_named_clips_come_in_their_order_and_once():
    assert chosen_clips(data([0, 1, 0]), "test", 1, ["clip2.mp4", "clip0.mp4", "clip2.mp4"], None) == [2, 0]
    with pytest.raises(ValueError, match=r"other\.mp4 is not in the test split but in val: pass --split val"):
        chosen_clips(data([0]), "test", 1, ["other.mp4"], None)
    with pytest.raises(ValueError, match=r"no clip nobody\.mp4"):
        chosen_clips(data([0]), "test", 1, ["nobody.mp4"], None)
    with pytest.raises(ValueError, match="train split has no clips"):
        chosen_clips(data([0]), "train", 1, None, None)


def test_every_clip_has_a_file_name_of_its_own():
    names = ["a/b c.mp4", "a_b_c.avi", "../.hidden", "é", "x.1-2", "a/b/c", "l" * 300 + "/end.mp4"]
    stems = file_stems(names)
    assert stems[:6] == ["a_b_c", "a_b_c-2", "hidden", "clip", "x.1-2", "a_b_c-3"]
    assert stems[6].endswith("l_end")
    assert len(stems[6]) == 120
