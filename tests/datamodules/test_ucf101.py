import logging
from collections import defaultdict

import pytest

from datamodules.ucf101 import UCF101, read_class_names, read_list

CLASSES = ("Archery", "HandstandPushups", "Hammering")  # neither alphabetical nor spelt as the files are


@pytest.fixture
def root(tmp_path):
    """Three classes; groups 1 and 2 are for testing, 3 to 10 for training, two clips each."""
    videos, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    train, test = [], []
    for label, name in enumerate(CLASSES, start=1):
        (videos / name).mkdir(parents=True)
        for group in range(1, 11):
            for clip in (1, 2):
                file = f"v_{name.replace('stand', 'Stand')}_g{group:02}_c{clip:02}.avi"
                (videos / name / file).write_bytes(b"")
                if group > 2:
                    train.append(f"{name}/{file.replace('Stand', 'stand')} {label}")
                else:
                    test.append(f"{name}/{file}")
    (lists / "classInd.txt").write_bytes("".join(f"{i} {n}\r\n" for i, n in enumerate(CLASSES, 1)).encode())
    (lists / "trainlist01.txt").write_bytes("".join(f"{line}\r\n" for line in train).encode())
    (lists / "testlist01.txt").write_bytes("".join(f"{line}\r\n" for line in test).encode())
    return videos


def groups(data, split):
    return {clip.group for clip in data.clips(split)}


def test_reads_lists(root):
    data = UCF101(str(root))
    assert data.class_names == list(CLASSES)
    assert len(data.clips("train")) + len(data.clips("val")) == 48
    assert len(data.clips("test")) == 12
    clip = data.clips("test")[4]
    assert (clip.label, clip.group) == (1, "HandstandPushups_g01")
    assert clip.path.endswith("HandstandPushups/v_HandStandPushups_g01_c01.avi")


def test_validation_is_cut_by_class_and_group(root):
    data = UCF101(str(root), val_fraction=0.25)
    # 8 groups of 2 clips in each class: two groups are a quarter.
    per_class = defaultdict(set)
    for group in groups(data, "val"):
        per_class[group.split("_")[0]].add(group)
    assert {name: len(found) for name, found in per_class.items()} == dict.fromkeys(CLASSES, 2)
    assert not groups(data, "train") & groups(data, "val")
    assert len(data.clips("val")) == 12
    assert [c.sample_id for c in UCF101(str(root), val_fraction=0.25).clips("val")] == [
        c.sample_id for c in data.clips("val")
    ]
    # The classes do not all give away the same numbers.
    assert len({frozenset(group[-3:] for group in found) for found in per_class.values()}) > 1


def test_group_numbers_that_span_classes(root):
    data = UCF101(str(root), val_fraction=0.25, groups_span_classes=True)

    def numbers(split):
        return {group[-3:] for group in groups(data, split)}

    assert len(numbers("val")) == 2
    assert not numbers("val") & numbers("train")
    assert {clip.label for clip in data.clips("val")} == {0, 1, 2}


def test_without_validation(root):
    data = UCF101(str(root), val_fraction=0)
    assert len(data.clips("train")) == 48
    assert data.clips("val") == []
    assert data.val_dataloader() == []


def test_class_of_one_group_stays_in_training(root, caplog):
    lists = root.parent / "ucfTrainTestlist"
    kept = [
        line for line in (lists / "trainlist01.txt").read_text().splitlines() if "Arch" not in line or "_g03" in line
    ]
    (lists / "trainlist01.txt").write_text("\n".join(kept))
    with caplog.at_level(logging.WARNING):
        data = UCF101(str(root))
        assert sum(clip.label == 0 for clip in data.clips("train")) == 2
    assert "without any: Archery" in caplog.text


def test_annotations_may_lie_in_the_root_or_be_given(root):
    lists = root.parent / "ucfTrainTestlist"
    assert UCF101(str(root), annotations=str(lists)).num_classes == 3
    for file in lists.iterdir():
        file.rename(root / file.name)
    assert UCF101(str(root)).num_classes == 3


def edit(root, name, old, new):
    path = root.parent / "ucfTrainTestlist" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("classInd.txt", "2 Hand", "4 Hand", "numbered 1, 2, 3 and so on"),
        ("classInd.txt", "2 Hand", "1 Hand", "line 2: expected every number once"),
        ("classInd.txt", "2 Hand", "Hand", "line 2: expected '<number> <class>'"),
        ("classInd.txt", "3 Hammering", "3 Hammering\n4 Juggling", "found none for Juggling"),
        ("trainlist01.txt", "Archery/", "Arching/", "line 1: expected '<Class>/<file>' with a class"),
        ("trainlist01.txt", "_c01.avi 1", "_c01.avi 2", "line 1: expected the number 1 of Archery, got 2"),
        ("testlist01.txt", "v_Archery_g01", "v_Archery_g03", "no group in both lists of fold 1, found 1: Archery_g03"),
    ],
)
def test_bad_lists(root, name, old, new, message):
    edit(root, name, old, new)
    with pytest.raises(ValueError, match=message):
        UCF101(str(root)).clips("train")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("labelled", [False, True])
def test_lists_in_every_form_that_is_about(root, ending, mark, labelled):
    """Line ends, byte order mark, blank lines, spaces at the ends, and labels in the test list as some copies have."""
    expected = [
        (clip.sample_id, clip.label, clip.split) for s in ("train", "test") for clip in UCF101(str(root)).clips(s)
    ]
    for path in (root.parent / "ucfTrainTestlist").iterdir():
        lines = path.read_text().split("\n")
        if labelled and path.name.startswith("testlist"):
            label_of = {name: label for label, name in enumerate(CLASSES, start=1)}
            lines = [f"{line} {label_of[line.split('/')[0]]}" for line in lines if line]
        text = ending.join(["", *(f"{line} " for line in lines[:2]), "", *lines[2:], "", " "])
        path.write_bytes((mark + text).encode())
    data = UCF101(str(root))
    assert data.class_names == list(CLASSES)
    assert [(c.sample_id, c.label, c.split) for s in ("train", "test") for c in data.clips(s)] == expected


def test_every_split_has_its_own_lists(root):
    lists = root.parent / "ucfTrainTestlist"
    # Split n tests groups 2n - 1 and 2n.
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.avi"))
    for fold in (1, 2, 3):
        tested = [name for name in files if f"_g{2 * fold - 1:02}_" in name or f"_g{2 * fold:02}_" in name]
        (lists / f"testlist{fold:02}.txt").write_text("\n".join(tested))
        (lists / f"trainlist{fold:02}.txt").write_text("\n".join(name for name in files if name not in tested))
    for fold in (1, 2, 3):
        data = UCF101(str(root), fold=fold)
        assert {group[-3:] for group in groups(data, "test")} == {f"g{2 * fold - 1:02}", f"g{2 * fold:02}"}
        assert not groups(data, "test") & (groups(data, "train") | groups(data, "val"))


def test_a_group_number_of_another_class_leaks_only_where_numbers_span_classes(root):
    edit(root, "testlist01.txt", "Archery/v_Archery_g01_c01.avi", "")
    edit(root, "testlist01.txt", "Archery/v_Archery_g01_c02.avi", "")
    lists = root.parent / "ucfTrainTestlist"
    with (lists / "trainlist01.txt").open("a") as file:
        file.write("Archery/v_Archery_g01_c01.avi 1\n")
    assert len(UCF101(str(root)).clips("test")) == 10
    with pytest.raises(
        ValueError, match=r"no group in both lists of fold 1, found 1: g01\. Their clips show one recording"
    ):
        UCF101(str(root), groups_span_classes=True).clips("test")


def test_what_files_say_of_their_class(root):
    data = UCF101(str(root))
    assert data.stated_classes(data.clips("test")[4]) == {"folder": "HandstandPushups", "file name": "HandStandPushups"}


def test_name_without_a_group(root):
    (root / "Archery" / "clip1.avi").write_bytes(b"")
    edit(root, "trainlist01.txt", "v_Archery_g03_c01.avi", "clip1.avi")
    with pytest.raises(ValueError, match=r"got 'Archery/clip1\.avi': its group is unknown"):
        UCF101(str(root)).clips("train")


def test_missing_files(root, tmp_path):
    edit(root, "trainlist01.txt", "v_Archery_g03", "v_Archery_g11")
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 60 listed clips do not exist in .*: Archery/v_Archery_g11_c01"
    ):
        UCF101(str(root)).clips("train")
    with pytest.raises(FileNotFoundError, match=r"trainlist02.txt .*found \['testlist01.txt', 'trainlist01.txt'\]"):
        UCF101(str(root), fold=2).clips("train")
    with pytest.raises(FileNotFoundError, match=r"Set data.annotations"):
        UCF101(str(root), annotations=str(tmp_path)).clips("train")
    with pytest.raises(FileNotFoundError, match=r"Set data.root"):
        UCF101(str(tmp_path / "nowhere")).clips("train")


def test_official_lists(shared_folder, tmp_path):
    folder = shared_folder / "annotations" / "ucf101"
    names = read_class_names(folder / "classInd.txt")
    assert len(names) == 101
    assert (names[34], names[35]) == ("Hammering", "HammerThrow")  # classInd's order, not the alphabet's
    train = read_list(folder / "trainlist01.txt", names)
    test = read_list(folder / "testlist01.txt", names)
    assert (len(train), len(test)) == (9537, 3783)
    assert read_list(folder / "testlist01.as_found.txt", names) == test
    for name, _ in train + test:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    data = UCF101(str(tmp_path), annotations=str(folder))
    assert 0.13 < len(data.clips("val")) / len(train) < 0.17
    for split in ("train", "val", "test"):
        assert {clip.label for clip in data.clips(split)} == set(range(101))
    assert not groups(data, "train") & groups(data, "val")
    assert not (groups(data, "train") | groups(data, "val")) & groups(data, "test")


@pytest.mark.parametrize("span", [False, True])
def test_real_clips(shared_folder, span):
    data = UCF101(
        str(shared_folder / "clips" / "ucf101_like"),
        annotations=str(shared_folder / "annotations" / "ceiling"),
        groups_span_classes=span,
        frames=4,
        size=64,
        batch_size=4,
    )
    assert data.num_classes == 9
    assert len(data.clips("train")) + len(data.clips("val")) == 188
    assert len(data.clips("test")) == 74
    batch = next(iter(data.evaluation_loader(data.clips("test")[::20])))
    assert batch["clip"].shape == (4, 3, 4, 64, 64)
    assert batch["unreadable"] == []
    assert batch["clip"].float().std() > 10
