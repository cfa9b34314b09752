"""A fit, validation or test whose loss is not finite ends, names the clips, and overwrites nothing good."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import train
from callbacks import RunCheckpoint
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from lightning_modules.finite_losses import NotFiniteError, listed
from sightline.run.folder import VARIABLE
from tests.conftest import CABIN, TINY_SWIN
from tests.lightning_modules.test_video_classifier import batch_of, make_module, make_trainer

ROOT = Path(__file__).resolve().parents[2]
NAN = float("nan")


class Failing(VideoClassifier):
    """Its training loss is NaN in the third epoch; the weights of its first two are good."""

    fails_in = 2

    def training_loss(self, logits, batch):
        loss = super().training_loss(logits, batch)
        return loss * NAN if self.current_epoch == self.fails_in else loss


def failing() -> Failing:
    options = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
    structure = {"num_classes": 2, "backbone": "video_swin_demo", "frames": 4, "size": 32, "options": options}
    return Failing(**structure, learning_rate=1e-3)


def test_a_fit_stops_and_names_epoch_step_and_clips(tmp_path, cabin_root):
    module = failing()
    trainer = make_trainer(tmp_path, max_epochs=4, num_sanity_val_steps=0, callbacks=[RunCheckpoint()])
    with pytest.raises(
        NotFiniteError, match=r"in epoch 3, step 12, on the clips videos/s0\S+(, videos/s0\S+){7}\. The"
    ) as stopped:
        trainer.fit(module, SyntheticCabin(root=str(cabin_root), **CABIN))
    assert "\n" not in str(stopped.value)
    for name in ("best", "last"):
        saved = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert all(value.isfinite().all() for value in saved["state_dict"].values())
    assert saved["epoch"] == 1  # the last whole one, counted from 0
    assert all(p.isfinite().all() for p in module.parameters())  # the step was not taken


class Spoiling(RunCheckpoint):
    """Spoils the weights after the last step of the second epoch, whose loss was finite."""

    def on_train_batch_end(self, trainer, pl_module, *rest):
        super().on_train_batch_end(trainer, pl_module, *rest)
        if trainer.current_epoch == 1 and trainer.is_last_batch:
            with torch.no_grad():
                pl_module.backbone.norm.bias[0] = NAN


@pytest.mark.parametrize("validates", [True, False])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, cabin_root, validates):
    trainer = make_trainer(
        tmp_path,
        max_epochs=4,
        num_sanity_val_steps=0,
        callbacks=[Spoiling()],
        limit_val_batches=None if validates else 0,
    )
    told = (
        r"val/loss is not finite: .* for \d+ clips, videos/s0"
        if validates
        else r"After epoch 2, step 12, .* backbone\.norm"
    )
    with pytest.raises(NotFiniteError, match=told):
        trainer.fit(failing(), SyntheticCabin(root=str(cabin_root), **CABIN))
    for path in (tmp_path / "checkpoints").iterdir():
        saved = torch.load(path, weights_only=True)
        assert saved["epoch"] == 0
        assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_a_test_whose_loss_is_not_finite_names_the_clips(monkeypatch):
    module = make_module()
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    logits = iter([[[0.0, 1.0], [NAN, 0.0]], [[float("inf"), 0.0], [0.0, -float("inf")]], [[0.0, 0.0]]])
    module.forward = lambda clips: torch.tensor(next(logits))
    module.test_step({**batch_of([0, 0]), "sample_id": ["good", "a"]}, 0)
    module.test_step({**batch_of([0, 0]), "sample_id": ["b", "certain"]}, 1)  # that the other is impossible is no error
    with pytest.raises(NotFiniteError, match=r"test/loss is not finite: .* for 2 clips, a, b\. Run with"):
        module.on_test_epoch_end()
    module.test_step(batch_of([0]), 0)
    module.on_test_epoch_end()  # forgotten with the epoch


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert listed([]) == "none that could be read"


def test_the_commands_end_with_one_line(tiny_config, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    config = yaml.safe_load(tiny_config.read_text())
    config["trainer"] |= {"callbacks": None, "max_epochs": 1}
    tiny_config.write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match=r"^error: The training loss is not finite in epoch 1, step \d") as ended:
        train.main(["fit", "--config", str(tiny_config), "--run", str(run), "--model.learning_rate", "1e30"])
    assert str(ended.value).count("\n") == 1  # where the traceback is told
    assert not list((run / "checkpoints").glob("*.ckpt"))
    train.main(["fit", "--config", str(tiny_config), "--run", str(tmp_path / "good")])
    best = tmp_path / "good" / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content["state_dict"]["backbone.norm.bias"][0] = NAN
    spoilt = tmp_path / "spoilt.ckpt"
    torch.save(content, spoilt)
    for words in (
        ["test", "--run", str(tmp_path / "good"), "--ckpt_path", str(spoilt)],
        ["prune", "--run", str(tmp_path / "good"), "--ckpt_path", str(spoilt)],
        ["fit", "--config", str(tiny_config), "--run", str(tmp_path / "more"), "--ckpt_path", str(spoilt)],
        ["fit", "--config", str(tiny_config), "--run", str(tmp_path / "more"), "--model.weights", str(spoilt)],
    ):
        with pytest.raises(SystemExit, match=r"^error: .*spoilt\.ckpt holds weights that are not finite: 1 value in"):
            train.main(words)


SCRIPT = """
import sys
import torch
from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from tests.conftest import CABIN
from tests.lightning_modules.test_finite_losses import failing
from tests.lightning_modules.test_video_classifier import make_trainer

class NaNOnOne(VideoClassifier):
    def training_loss(self, logits, batch):
        loss = super().training_loss(logits, batch)
        return loss * float("nan") if self.global_rank == 1 and self.global_step == 2 else loss

module = failing()
module.__class__ = NaNOnOne
trainer = make_trainer(sys.argv[1], max_epochs=2, num_sanity_val_steps=0, devices=2, strategy="ddp")
trainer.fit(module, SyntheticCabin(root=sys.argv[2], **{**CABIN, "batch_size": 4}))
"""


@pytest.mark.slow
def test_all_processes_stop_together_with_the_same_names(tmp_path, cabin_root):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIGHTLINE_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path), str(cabin_root)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "NotFiniteError: The training loss" in line]
    lines = [line[line.index("NotFiniteError") :] for line in lines]
    assert len(lines) == 2, done.stderr[-3000:]
    assert lines[0] == lines[1]
    assert "in epoch 1, step 2, on the clips videos/s0" in lines[0]
