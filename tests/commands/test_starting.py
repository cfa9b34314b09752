"""A start that fails leaves nothing behind, so that the corrected command gets the folder that was asked for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import train
from sightline.run.folder import VARIABLE
from tests.commands.calling import error_of

QUICK = ("--trainer.callbacks", "null", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from sightline.run.atomic import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write_text("half")
    print("ready", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def fit(tiny_config, tmp_path):
    """The arguments of a quick fit into a folder."""
    return ["fit", "--config", str(tiny_config), "--run", str(tmp_path / "r"), *QUICK]


def saved_weights(path: Path, **changes) -> str:
    from sightline.backbones import build_backbone
    from tests.conftest import TINY_SWIN

    torch.save(build_backbone("video_swin_demo", 2, {**TINY_SWIN, **changes}).state_dict(), path)
    return str(path)


def test_weights_that_do_not_fit_leave_no_folder(fit, tmp_path, capsys, monkeypatch):
    told = error_of(capsys, *fit, "--model.init_args.weights", saved_weights(tmp_path / "wide.pth", width=32))
    assert "does not fit video_swin as configured" in told
    told = error_of(capsys, *fit, "--model.init_args.weights", str(tmp_path / "nothing.pth"))
    assert "does not exist" in told
    assert not (tmp_path / "r").exists()
    monkeypatch.delenv(VARIABLE, raising=False)
    train.main([*fit, "--model.init_args.weights", saved_weights(tmp_path / "right.pth")])
    assert (tmp_path / "r" / "checkpoints" / "best.ckpt").exists()


def test_missing_data_leaves_no_folder(fit, tmp_path, capsys):
    told = error_of(capsys, *fit, "--data", "datamodules.UCF101", "--data.root", str(tmp_path / "none"))
    assert str(tmp_path / "none") in told
    assert not (tmp_path / "r").exists()


def test_missing_videos_leave_no_folder(tiny_config, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    rows = [f"{name}{n}.mp4,{name},s{n}" for name in ("a", "b") for n in range(8)]
    (tmp_path / "data/clips.csv").write_text("\n".join(["video,label,subject", *rows]))
    config = yaml.safe_load(tiny_config.read_text())
    sizes = {key: config["data"]["init_args"][key] for key in ("frames", "size", "batch_size", "num_workers")}
    config["data"] = {"class_path": "datamodules.DriverClips", "init_args": {"root": str(tmp_path / "data"), **sizes}}
    tiny_config.write_text(yaml.safe_dump(config))
    told = error_of(capsys, "fit", "--config", str(tiny_config), "--run", str(tmp_path / "r"), *QUICK)
    assert "of which 16 do not exist" in told
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("options", [["--trainer.accelerator", "gpu"], ["--checkpoint.monitor", "val/nothing"]])
def test_options_that_only_the_trainer_refuses_leave_the_earlier_run(fit, tmp_path, monkeypatch, options):
    if "gpu" in options and torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU, where asking for one fails")
    train.main(fit)
    monkeypatch.delenv(VARIABLE, raising=False)
    before = (tmp_path / "r/checkpoints/best.ckpt").read_bytes()
    with pytest.raises((Exception, SystemExit)):
        train.main([*fit, "--replace_run", "true", *options])
    if "gpu" in options:
        assert (tmp_path / "r/checkpoints/best.ckpt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*r*") if path.is_dir()) == ["r"]
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_that_cannot_be_resumed_leaves_no_folder(fit, own_run, tmp_path, capsys):
    pruned = own_run / "pruned/relevance-r-lowest-k1/model.ckpt"
    arguments = [word if word != str(tmp_path / "r") else str(tmp_path / "new") for word in fit]
    told = error_of(capsys, *arguments, "--ckpt_path", str(pruned))
    assert "Training cannot go on" in told
    assert "--model.weights" in told
    assert not (tmp_path / "new").exists()


def test_what_a_killed_process_left_is_gone_at_the_next_start(own_run: Path):
    """In every folder of the run, also in those that the command does not write to."""
    paths = [own_run / "attention" / "a.png", own_run / "checkpoints" / "best.ckpt", own_run / "config.yaml"]
    before = {path: path.read_bytes() for path in paths if path.exists()}
    writers = [_writer(path) for path in paths]
    living = _writer(own_run / "attention" / "b.png")
    assert len(_unfinished(own_run)) == 4
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    try:
        train.main(["validate", "--run", str(own_run)])
        left = _unfinished(own_run)
        assert [path.name.startswith(".b.partial-") for path in left] == [True]
    finally:
        living.kill()
        living.wait()
    assert {path: path.read_bytes() for path in before} == before


def test_a_checkpoint_that_is_being_written_lies_beside_its_place(tmp_path, monkeypatch):
    from lightning_modules.checkpoint_io import SafeCheckpointIO

    seen = []
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: seen.append(path) or path.touch())
    SafeCheckpointIO().save_checkpoint({"x": 1}, tmp_path / "new" / "last.ckpt")
    assert [path.parent for path in seen] == [tmp_path / "new"]
    assert seen[0].name.startswith(".last.partial-")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def _writer(path: Path) -> subprocess.Popen:
    root = Path(train.__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _unfinished(run: Path) -> list[Path]:
    return [path for path in run.rglob(".*") if ".partial-" in path.name]
