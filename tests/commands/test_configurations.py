"""Every configuration is parsed, and what it names is built."""

import dataclasses
from pathlib import Path

import pytest
import yaml

import train
from callbacks import SideBySideGallery, TransferGallery
from callbacks.commands import training
from callbacks.commands.data import OTHER_SECTIONS
from callbacks.galleries.transfer import class_mapping
from callbacks.run_trainer import Split
from datamodules.clip_data_module import ClipDataModule
from sightline.backbones import build_backbone
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan

CONFIGS = Path(train.__file__).parent / "configs"


def export_demo(folder: Path, names: list[str]) -> Path:
    """Export the demo's Video Swin without three layers, untrained."""
    options = {"frames": 8, "size": 64}
    backbone = build_backbone("video_swin_demo", len(names), options).without((1, 2, 5))
    backbone.set_record(dataclasses.replace(backbone.record, class_names=tuple(names)))
    plan = PruningPlan("relevance", "r", "lowest", 3, (1, 2, 5))
    return export_model(
        backbone, folder, name="video_swin_demo", options=options, plan=plan, provenance={}, sampling={}
    )


def test_print_config_round_trips(tiny_config, tmp_path, capsys):
    def printed(config: Path) -> str:
        with pytest.raises(SystemExit):
            train.main(["fit", "--config", str(config), "--print_config"])
        return capsys.readouterr().out

    first = printed(tiny_config)
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(tmp_path / "printed.yaml") == first


def test_commands_on_data_know_every_section_of_a_configuration(tiny_config, capsys):
    with pytest.raises(SystemExit):
        train.main(["fit", "--config", str(tiny_config), "--print_config"])
    assert set(yaml.safe_load(capsys.readouterr().out)) == {"data", "run", *OTHER_SECTIONS}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_parsed_and_its_classes_instantiated(path: Path, tmp_path, monkeypatch):
    text = path.read_text()
    assert text.startswith("#"), "a config opens with what it is for"
    assert f"python train.py fit --config configs/{path.name}" in text.split("\nseed_everything")[0]
    monkeypatch.chdir(tmp_path)

    class OnlyBuild(training.RunTrainer):
        def fit(self, model, datamodule=None, ckpt_path=None, train_dataloaders=None, val_dataloaders=None) -> None:
            built.append((model, datamodule, self))

    built: list = []
    monkeypatch.setattr(training, "RunTrainer", OnlyBuild)
    # The data sets themselves are not here: their class lists are. The synthetic cabin, a subclass, counts its own.
    monkeypatch.setattr("datamodules.SyntheticCabin.num_classes", ClipDataModule.num_classes, raising=False)
    for data in ("UCF101", "DriverClips", "DriveAndAct"):
        monkeypatch.setattr(f"datamodules.{data}.class_names", [f"class{i}" for i in range(12)], raising=False)
        monkeypatch.setattr(f"datamodules.{data}.num_classes", 12, raising=False)
    more = []
    if path.stem == "recovery":  # which starts from what a run left
        names = yaml.safe_load(text)["data"]["init_args"]["actions"]
        student = str(export_demo(tmp_path / "student", names))
        more = ["--model.student", student, "--model.teacher", student]
    # So do these, from weights that only a trained run has.
    monkeypatch.setattr("lightning_modules.PolicyClassifier.begin", lambda self, stage, resumes: None)
    train.main(["fit", "--config", str(path), "--wandb.mode", "disabled", "--trainer.accelerator", "cpu",
                "--trainer.devices", "1", *more])  # fmt: skip
    model, data, trainer = built[0]
    assert model.backbone.input_spec.frames == data.frames
    assert model.hparams["num_classes"] == data.num_classes
    assert getattr(model, "epochs", trainer.max_epochs) == trainer.max_epochs


@pytest.mark.parametrize("path", sorted((CONFIGS / "transfer").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_transfer_is_parsed_and_maps_classes_that_exist(path: Path, own_run: Path, monkeypatch):
    assert f"python train.py explain --run <run> --config configs/transfer/{path.name}" in path.read_text()
    built: list = []

    class OnlyBuild(training.RunTrainer):
        def explain(self, model, datamodule, ckpt_path=None, split: Split = "test") -> None:
            built.extend(step for step in self.callbacks if isinstance(step, TransferGallery))

    monkeypatch.setattr(training, "RunTrainer", OnlyBuild)
    train.main(["explain", "--run", str(own_run), "--config", str(path)])
    [transfer] = built
    assert (transfer.data.frames, transfer.data.size) == (16, 224)
    names = transfer.data._class_names()
    mapped = class_mapping(transfer.classes, list(transfer.classes), names)
    assert {names[label] for label in mapped} == {
        "interacting_with_phone", "working_on_laptop", "eating", "drinking", "opening_backpack", "closing_backpack"
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted((CONFIGS / "side_by_side").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_side_by_side_is_parsed(path: Path, own_run: Path, monkeypatch):
    assert f"python train.py explain --run <run> --config configs/side_by_side/{path.name}" in path.read_text()
    built: list = []

    class OnlyBuild(training.RunTrainer):
        def explain(self, model, datamodule, ckpt_path=None, split: Split = "test") -> None:
            built.extend(step for step in self.callbacks if isinstance(step, SideBySideGallery))

    monkeypatch.setattr(training, "RunTrainer", OnlyBuild)
    other = ["--trainer.callbacks.other", str(own_run)]
    train.main(["explain", "--run", str(own_run), "--config", str(path), *other])
    [gallery] = built
    assert (gallery.other, gallery.classes) == (str(own_run), ["PlayingViolin"])
