"""``predict --exported``: evaluation's pixels, every file, and one line where a file is bad."""

import json
import os
import sys

import pytest
import torch

import train
from sightline.backbones import build_backbone
from sightline.commands import predict_files as module
from sightline.export.reading import load_exported
from sightline.export.writing import export_model
from sightline.pruning import unpruned_plan
from sightline.types import ModelRecord
from sightline.video.clips import Clip, ClipSettings, load_clip
from tests.commands.calling import imported_by
from tests.conftest import TINY_SWIN, randomise
from tests.sightline.video.video_files import truncate, write_video

CLASSES = ("eating", "größere Pause", "texting", "writing", "yawning")
SAMPLING = {"frames": 4, "size": 32, "short_side": 36, "antialias": True}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    backbone = randomise(build_backbone("video_swin_demo", 5, TINY_SWIN))
    backbone.set_record(ModelRecord((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), CLASSES, "a test"))
    return export_model(
        backbone, tmp_path_factory.mktemp("pruned") / "model", name="video_swin_demo", options=TINY_SWIN,
        plan=unpruned_plan(), provenance={}, sampling=SAMPLING, ranking=[2, 0, 3, 1],
    )  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [str(write_video(folder / name, frames)) for name, frames in (("a.mp4", 40), ("b.avi", 63), ("c.mp4", 30))]


def lines(capsys, exported, *arguments: str) -> list[dict]:
    assert module.run("predict", ["--exported", str(exported), *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def by_hand(exported, path: str, start=None, end=None, skip=()) -> dict[str, float]:
    clip = load_clip(Clip("x", path, 0, "", start=start, end=end), ClipSettings(**SAMPLING))
    with torch.no_grad():
        p = load_exported(exported).backbone(clip[None], skip=skip).double().softmax(-1)[0]
    return dict(zip(CLASSES, p.tolist(), strict=True))


def check(line: dict, expected: dict[str, float], top: int = 5) -> None:
    told = {entry["name"]: entry["probability"] for entry in line["classes"]}
    assert list(told) == sorted(expected, key=lambda name: -expected[name])[:top]
    for name, p in told.items():
        assert p == pytest.approx(expected[name], abs=2e-6)


@pytest.mark.parametrize("batch", ["1", "2", "8"])
def test_probabilities_are_those_of_evaluation(exported, videos, batch, capsys):
    found = lines(capsys, exported, "--video", *videos[:2], "--video", videos[2], "--batch", batch, "--device", "cpu")
    assert [line["video"] for line in found] == videos
    assert [line["end"] for line in found] == pytest.approx([1.6, 2.52, 1.2], abs=0.01)
    for line, path in zip(found, videos, strict=True):
        check(line, by_hand(exported, path))


def test_windows_slide_over_the_video(exported, videos, tmp_path):
    out = tmp_path / "windows.jsonl"
    arguments = ["--video", videos[0], "--window", "0.8", "--stride", "0.4", "--top", "2", "--out", str(out)]
    assert module.run("predict", ["--exported", str(exported), *arguments]) == 0
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["start"], line["end"]) for line in found] == [(0, 0.8), (0.4, 1.2), (0.8, 1.6)]
    for line in found:
        check(line, by_hand(exported, videos[0], line["start"], line["end"]), top=2)


def test_depth_leaves_out_the_least_relevant_layers(exported, videos, capsys):
    (whole,) = lines(capsys, exported, "--video", videos[0])
    (line,) = lines(capsys, exported, "--video", videos[0], "--depth", "2")
    check(line, by_hand(exported, videos[0], skip=(0, 2)))
    assert line["classes"] != whole["classes"]


def test_a_bad_video_gives_one_line_and_the_others_go_on(exported, videos, tmp_path, capsys):
    cut = truncate(write_video(tmp_path / "cut.avi", 60), 0.5)
    arguments = [videos[0], str(tmp_path / "none.mp4"), str(cut), str(tmp_path), videos[1]]
    assert module.run("predict", ["--exported", str(exported), "--video", *arguments]) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["video"] for line in printed.out.splitlines()] == videos[:2]
    told = printed.err.splitlines()
    assert len(told) == 3
    assert told[0].startswith(f"error: {tmp_path / 'none.mp4'}: the file cannot be opened")
    assert told[1].startswith(f"error: {cut}: ")


def test_windows_that_cannot_be_read_are_left_out(exported, tmp_path, capsys):
    # Frames of 2 s, a hole of 20 s, frames of 2 s: of eleven windows of 2 s and a last one, those in the hole are none.
    path = write_video(tmp_path / "hole.mp4", stamps=[*range(50), *range(550, 600)], num_frames=100)
    arguments = ["--video", str(path), "--video", str(path), "--window", "2"]
    assert module.run("predict", ["--exported", str(exported), *arguments]) == 1
    printed = capsys.readouterr()
    starts = [json.loads(line)["start"] for line in printed.out.splitlines()]
    assert starts == [0, 22] * 2
    [told, again] = printed.err.splitlines()
    assert told == again
    assert told.startswith(f"error: {path}: 10 window(s) left out, the first from 2 s on: expected frames all the time")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("place", ["file", "stdout", "table"])
def test_a_name_that_is_no_utf8(exported, tmp_path, capsys, monkeypatch, place):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    os.rename(write_video(tmp_path / "a.mp4"), path)
    out = tmp_path / "out.jsonl"
    if place == "table":
        monkeypatch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
    arguments = ["--video", path, *(["--out", str(out)] if place == "file" else [])]
    assert module.run("predict", ["--exported", str(exported), *arguments]) == 0
    printed = out.read_bytes().decode() if place == "file" else capsys.readouterr().out
    assert "\\udce9" in "".join(printed.split())
    if place != "table":
        assert json.loads(printed)["video"] == path
        assert os.path.isfile(json.loads(printed)["video"])


def test_a_terminal_gets_a_table(exported, videos, monkeypatch, capsys):
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
    assert module.run("predict", ["--exported", str(exported), "--video", videos[0], "--top", "1"]) == 0
    best = max(by_hand(exported, videos[0]).items(), key=lambda pair: pair[1])
    printed = capsys.readouterr().out
    assert best[0] in printed
    assert f"{best[1]:.3f}" in printed
    assert "{" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "1"], "stride goes with window"),
        (["--window", "-1"], "above 0 seconds"),
        (["--batch", "0"], "batch of at least 1"),
        (["--top", "0"], "top of at least 1"),
        (["--depth", "9"], "depth from 0 to 4"),
        pytest.param(
            ["--device", "cuda"], "sees no CUDA", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has one")
        ),
    ],
)
def test_impossible_options_are_refused_in_one_line(exported, videos, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        train.main(["predict", "--exported", str(exported), "--video", videos[0], *arguments])
    assert message in str(stopped.value)


def test_folders_that_do_not_say_enough_are_refused(exported, videos, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        train.main(["predict", "--exported", str(tmp_path / "none"), "--video", videos[0]])
    assert "is not a folder" in str(stopped.value)
    told = json.loads((exported / "model.json").read_text())
    for sampling in ({}, {**SAMPLING, "frames": 8}):
        (tmp_path / "model.json").write_text(json.dumps({**told, "sampling": sampling}))
        with pytest.raises(SystemExit) as stopped:
            train.main(["predict", "--exported", str(tmp_path), "--video", videos[0]])
        assert "does not say how clips are made" in str(stopped.value)


def test_the_exit_code_reaches_the_shell(exported, videos, tmp_path):
    for video, code in [(videos[0], 0), (str(tmp_path / "none.mp4"), 1)]:
        with pytest.raises(SystemExit) as stopped:
            train.main(["predict", f"--exported={exported}", "--video", video])
        assert stopped.value.code == code


def test_help_is_of_the_command_on_files(exported, capsys):
    with pytest.raises(SystemExit):
        train.main(["predict", "--exported", str(exported), "--help"])
    printed = capsys.readouterr().out
    for word in ("--window", "--stride", "--video", "--depth", "Seconds of a window"):
        assert word in printed


def test_nothing_is_imported_that_only_trains_or_draws(exported, videos, tmp_path):
    out = str(tmp_path / "out.jsonl")
    used = imported_by("predict", "--exported", str(exported), "--video", videos[0], "--out", out)
    assert not used & {"lightning", "matplotlib", "plotly"}
    assert (tmp_path / "out.jsonl").is_file()
