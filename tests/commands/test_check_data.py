"""check-data on a small data set in UCF101's layout that has one of each finding."""

import csv
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml

from datamodules import UCF101, DriverClips, data_check
from datamodules.clip_check import examine
from datamodules.data_check import COLUMNS, check_data
from tests.commands.calling import code_of
from tests.sightline.video.video_files import truncate, write_video

CLASSES = ("Archery", "HandstandPushups")


@pytest.fixture(scope="module")
def sound_root(tmp_path_factory):
    """Two classes with two training groups and one test group, one clip each; every content is another."""
    root = tmp_path_factory.mktemp("ucf")
    frames = 12
    lists = {"train": [], "test": []}
    for name in CLASSES:
        for group in (1, 2, 8):
            file = f"v_{name.replace('stand', 'Stand')}_g{group:02}_c01.avi"
            frames += 1
            write_video(root / name / file, num_frames=frames)
            lists["train" if group > 1 else "test"].append(f"{name}/{file}")
    (root / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES, 1)))
    for part, names in lists.items():
        (root / f"{part}list01.txt").write_text("\n".join(names))
    return root


@pytest.fixture
def root(sound_root, tmp_path):
    return Path(shutil.copytree(sound_root, tmp_path / "ucf"))


def options(root, **others):
    return {"root": str(root), "frames": 12, "size": 32, "short_side": 48, "val_fraction": 0} | others


def rows_of(path):
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames) == COLUMNS
        return list(reader)


def add(root, name, source, part="train"):
    (root / name).parent.mkdir(exist_ok=True)
    shutil.copy(root / source, root / name)
    with (root / f"{part}list01.txt").open("a") as file:
        file.write(f"\n{name}")


def spoil(root):
    """Add one of each finding."""
    first = "Archery/v_Archery_g02_c01.avi"
    add(root, "Archery/v_Archery_g02_c02.avi", first)
    add(root, "HandstandPushups/v_HandStandPushups_g01_c02.avi", first, "test")
    write_video(root / "odd.avi", num_frames=30)
    add(root, "Archery/v_Hammering_g03_c01.avi", "odd.avi")
    write_video(root / "short.avi", num_frames=11)
    add(root, "Archery/v_Archery_g04_c01.avi", "short.avi")
    truncate(root / "HandstandPushups/v_HandStandPushups_g08_c01.avi", 0.8)


def found_in(rows):
    return [(r["kind"], r["split"], r["sample_id"].split("/")[1], r["other_sample_id"]) for r in rows]


EXPECTED = [
    ("unreadable", "train", "v_HandStandPushups_g08_c01.avi", ""),
    ("too_short", "train", "v_Archery_g04_c01.avi", ""),
    ("mislabelled", "train", "v_Hammering_g03_c01.avi", ""),
    ("duplicated", "train", "v_Archery_g02_c02.avi", "Archery/v_Archery_g02_c01.avi"),
    ("leaking", "test", "v_HandStandPushups_g01_c02.avi", "Archery/v_Archery_g02_c01.avi"),
]


@pytest.fixture
def config(root, tmp_path):
    """A configuration as fit has it: more than check-data needs."""
    content = {
        "seed_everything": 0,
        "data": {"class_path": "datamodules.UCF101", "init_args": options(root)},
        "model": {"class_path": "lightning_modules.VideoClassifier", "init_args": {"backbone": "mvit_v2_s"}},
        "trainer": {"max_epochs": 2, "callbacks": [{"class_path": "callbacks.HeadAblation"}]},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments):
    return code_of("check-data", *map(str, arguments))


def test_a_sound_data_set(config, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--config", config) == 0
    assert rows_of(tmp_path / "data_check.csv") == []
    assert "No findings among 6 clips" in capsys.readouterr().out


def test_one_of_each_finding(root, config, tmp_path, capsys):
    spoil(root)
    out = tmp_path / "reports" / "check.csv"
    assert run("--config", config, "--out", out, "--workers", "2") == 1
    rows = rows_of(out)
    assert found_in(rows) == EXPECTED
    assert "truncated" in rows[0]["reason"]
    assert "found 11" in rows[1]["reason"]
    assert "file name says Hammering" in rows[2]["reason"]
    assert rows[4]["other_split"] == "train"
    assert rows[4]["other_path"] == str(root / "Archery/v_Archery_g02_c01.avi")
    told = capsys.readouterr().out
    assert "5 findings among 10 clips" in told
    assert str(out) in told
    assert [path.name for path in out.parent.iterdir()] == ["check.csv"]


def test_options_of_the_data_override_the_configuration(config, tmp_path):
    out = tmp_path / "check.csv"
    assert run("--config", config, "--data.frames", "16", "--out", out) == 1
    assert Counter(row["kind"] for row in rows_of(out)) == {"too_short": 3}  # of 13 to 18 frames
    assert run("--config", config, "--data.frames", "16", "--min_frames", "2", "--out", out) == 0


def test_a_run_says_which_data_and_where(root, config, tmp_path):
    spoil(root)
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    config.rename(folder / "config.yaml")
    assert run("--run", folder) == 1
    assert len(rows_of(folder / "tables" / "data_check.csv")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "Expected workers >= 1"),
        (["--data.root", "nowhere"], "nowhere, which does not exist. Set data.root"),
        (["--out", "."], "Expected --out to name a file"),
        (["--works", "2"], "works"),
    ],
)
def test_errors_of_use(config, capsys, arguments, message):
    assert run("--config", config, *arguments) == 2
    assert message in capsys.readouterr().err


def test_groups_in_two_splits_are_told_at_once(root, config, capsys):
    add(root, "Archery/v_Archery_g01_c02.avi", "Archery/v_Archery_g02_c01.avi")
    assert run("--config", config) == 2
    assert "Expected no group in both lists of fold 1, found 1: Archery_g01" in capsys.readouterr().err


def deadly(task):
    clip, _ = task
    if "Archery_g08" in clip.path:
        os.kill(os.getpid(), signal.SIGKILL)
    return examine(task)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_clip_that_kills_its_process(root, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(data_check, "examine", deadly)
    out = tmp_path / "check.csv"
    assert check_data(UCF101(**options(root)), str(out), workers) == 1
    [row] = rows_of(out)
    assert (row["kind"], row["sample_id"]) == ("unreadable", "Archery/v_Archery_g08_c01.avi")
    assert row["reason"] == "the process that read it died (SIGKILL)"


def test_an_interruption_writes_nothing(config, tmp_path, capsys, monkeypatch):
    out = tmp_path / "check.csv"
    out.write_text("an earlier report")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_check, "findings", interrupted)
    assert run("--config", config, "--out", out) == 130
    assert out.read_text() == "an earlier report"
    assert "Interrupted" in capsys.readouterr().err


def test_folders_named_by_classes_speak_against_a_csv(root, tmp_path):
    names = sorted(path.relative_to(root) for path in root.rglob("*.avi"))
    rows = [f"{name},{name.parent},s{number}" for number, name in enumerate(names)]
    rows[1] = f"{names[1]},HandstandPushups,s1"
    (root / "clips.csv").write_text("\n".join(["video,label,subject", *rows]))
    out = tmp_path / "check.csv"
    assert check_data(DriverClips(str(root), frames=12, size=32), str(out), 1) == 1
    assert [row["reason"] for row in rows_of(out)] == ["labelled HandstandPushups, but its folder says Archery"]
    # Where one clip lies elsewhere the folders mean something else.
    shutil.move(root / names[0], root / "other.avi")
    rows[0] = "other.avi,Archery,s0"
    (root / "clips.csv").write_text("\n".join(["video,label,subject", *rows]))
    assert check_data(DriverClips(str(root), frames=12, size=32), str(out), 1) == 0
