"""Writing exported folders: the same model comes back, and half a folder never appears."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import safetensors.torch
import torch

from sightline.backbones import build_backbone
from sightline.export.reading import load_exported, read_description
from sightline.run.unfinished import clean_leftovers
from sightline.types import ModelRecord
from tests.sightline.export.models import NAME, OPTIONS, PLANS, RECORD, clips, export, logits, make


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_same_model_comes_back(plan, tmp_path):
    backbone = make(plan)
    folder = export(backbone, tmp_path / plan.plan_id, plan)
    loaded = load_exported(folder).backbone
    assert torch.equal(logits(loaded), logits(backbone))
    assert loaded.layers == backbone.layers
    assert loaded.record == RECORD
    assert loaded.input_spec == backbone.input_spec
    assert not any(module.training for module in loaded.modules())
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    assert stored.keys() == backbone.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_survives(dtype, place):
    plan = PLANS["layers"]
    backbone = make(plan).to(dtype)
    loaded = load_exported(export(backbone, place, plan)).backbone
    assert next(loaded.parameters()).dtype == dtype
    assert torch.equal(logits(loaded), logits(backbone))


@pytest.mark.parametrize("kind", ["layers", "heads"])
def test_the_file_is_really_smaller(kind, tmp_path):
    full = export(make(PLANS["full"]), tmp_path / "full", PLANS["full"]) / "model.safetensors"
    pruned = export(make(PLANS[kind]), tmp_path / "pruned", PLANS[kind]) / "model.safetensors"
    floats = [
        sum(t.numel() for t in safetensors.torch.load_file(path).values() if t.is_floating_point())
        for path in (full, pruned)
    ]
    counts = [sum(p.numel() for p in make(PLANS[name]).parameters()) for name in ("full", kind)]
    assert floats == counts
    assert floats[1] < floats[0]
    assert pruned.stat().st_size < full.stat().st_size - 3 * (floats[0] - floats[1])


def test_description(exported):
    told = read_description(exported)
    assert told["family"] == "video_swin"
    assert told["kept_layers"] == [0, 2, 4]
    assert told["removed_layers"] == [1, 3, 5]
    assert told["kept_heads"][1] == [2, "attention", [0, 1, 2, 3]]
    assert told["plan"]["plan_id"] == "relevance-r-lowest-k3"
    assert told["classes"] == list(RECORD.class_names)
    assert told["input"] == {"frames": 8, "height": 64, "width": 64}
    assert told["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert told["provenance"] == {"run": "runs/one", "epoch": 4}
    assert told["scores"] == {"1": 0.25, "3": 0.5}
    assert told["sampling"] == {"stride": 2}
    assert told["source"] == "a test"
    assert {"sightline", "torch", "python"} <= told["versions"].keys()


def test_exporting_and_loading_leave_the_generator_alone(place):
    backbone = make(PLANS["layers"])
    state = torch.get_rng_state()
    load_exported(export(backbone, place, PLANS["layers"]))
    assert torch.equal(torch.get_rng_state(), state)


# What Lightning takes -----------------------------------------------------------------------------------------------


class Shell(L.LightningModule):
    """As much of a module as `load_from_checkpoint` and ``ckpt_path`` need."""

    def __init__(self, backbone: str, removed_layers: list[int]):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = build_backbone(backbone, 3, OPTIONS, tuple(removed_layers))

    def test_step(self, batch, batch_idx):
        self.log("mean", self.backbone(batch).mean())


def test_checkpoint_holds_plain_values_only(exported):
    checkpoint = torch.load(exported / "model.ckpt", weights_only=True)
    assert "loops" not in checkpoint
    assert checkpoint["hyper_parameters"] == {"backbone": NAME, "removed_layers": [1, 3, 5]}
    assert checkpoint["record"]["mean"] == [0.1, 0.2, 0.3]
    assert checkpoint["global_step"] == 0
    assert all(key.startswith("backbone.") for key in checkpoint["state_dict"])


def test_checkpoint_loads_with_lightning(exported, tmp_path):
    module = Shell.load_from_checkpoint(exported / "model.ckpt", weights_only=True)
    module.backbone.set_record(RECORD)
    assert torch.equal(logits(module.eval().backbone), logits(make(PLANS["layers"])))
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = torch.utils.data.DataLoader(clips(), batch_size=2)
    results = trainer.test(
        Shell(NAME, [1, 3, 5]), loader, ckpt_path=exported / "model.ckpt", weights_only=True, verbose=False
    )
    assert len(results) == 1


def test_checkpoint_without_hyper_parameters(place):
    export(make(PLANS["layers"]), place, PLANS["layers"], hyper_parameters=None)
    assert "hyper_parameters" not in torch.load(place / "model.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyper_parameters": {"loss": {"kind": torch.nn.ReLU()}}}, r"hyper_parameters\['loss'\]\['kind'\] is a ReLU"),
        ({"scores": {3: float("nan")}}, r"scores\[3\] is nan"),
        ({"provenance": {"when": object()}}, r"provenance\['when'\] is a object"),
    ],
)
def test_values_that_are_not_plain_are_refused_before_anything_is_written(changes, message, place):
    with pytest.raises(ValueError, match=message):
        export(make(PLANS["layers"]), place, PLANS["layers"], **changes)
    assert not place.parent.exists()


# A description that is not the model's ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "video_swin_t"}, "not video_swin_t with the options given: it has frames 8"),
        ({"options": {}}, r"it has shifted_windows False \(there True\)"),
        ({"options": {"widht": 3}}, "no option 'widht'"),
        ({"plan": PLANS["full"]}, "not what plan relevance-r-none-k0 leaves"),
        ({"plan": PLANS["heads"]}, "not what plan relevance-r-lowest-k3 leaves"),
    ],
)
def test_another_models_description_is_refused(changes, message, place):
    with pytest.raises(ValueError, match=message):
        export(make(PLANS["layers"]), place, **{"plan": PLANS["layers"], **changes})
    assert not place.exists()


def test_wrong_number_of_class_names_is_refused(place):
    backbone = make(PLANS["layers"])
    backbone.set_record(ModelRecord(class_names=("one",)))
    with pytest.raises(ValueError, match="3 classes, but its record names 1"):
        export(backbone, place, PLANS["layers"])


def test_weights_of_mixed_types_are_refused(place):
    backbone = make(PLANS["layers"])
    backbone.head.half()
    with pytest.raises(ValueError, match="one type out of float32"):
        export(backbone, place, PLANS["layers"])


# Whole or not there -------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("where", ["torch.save", "json.dumps", "sightline.run.whole_folder._write_out"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interruption_leaves_nothing_that_looks_whole(where, error, place, monkeypatch):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(error)):
            export(make(PLANS["layers"]), place, PLANS["layers"])
    assert list(place.parent.iterdir()) == []
    export(make(PLANS["layers"]), place, PLANS["layers"])
    before = contents(place)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(error)):
            export(make(PLANS["layers"], seed=9), place, PLANS["layers"])
    assert contents(place) == before
    assert list(place.parent.iterdir()) == [place]


def test_failing_rename_puts_the_former_folder_back(exported, monkeypatch):
    before, rename = contents(exported), Path.rename

    def fail(self, target):
        if ".partial-" in self.name:
            raise OSError("no")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="no"):
            export(make(PLANS["layers"], seed=9), exported, PLANS["layers"])
    assert contents(exported) == before
    assert list(exported.parent.iterdir()) == [exported]


def test_earlier_export_is_replaced(exported):
    (exported / "model.onnx").write_text("made from the earlier weights")
    newer = make(PLANS["layers"], seed=9)
    export(newer, exported, PLANS["layers"])
    assert torch.equal(logits(load_exported(exported).backbone), logits(newer))
    assert sorted(contents(exported)) == ["model.ckpt", "model.json", "model.safetensors"]
    assert list(exported.parent.iterdir()) == [exported]


def test_a_folder_of_something_else_is_not_deleted(place):
    place.mkdir(parents=True)
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        export(make(PLANS["layers"]), place, PLANS["layers"])
    assert contents(place) == {"thesis.tex": b"years of work"}


@pytest.fixture
def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_leftovers_of_dead_runs_are_cleaned_and_others_kept(exported, dead_pid):
    host, parent = socket.gethostname(), exported.parent
    dead = parent / f".some-plan-k1.partial-{host}-{dead_pid}"
    alive = parent / f".some-plan-k1.partial-{host}-{os.getppid()}"
    elsewhere = parent / f".some-plan-k1.partial-not{host}-{dead_pid}"
    for path in (dead, alive, elsewhere):
        path.mkdir()
    export(make(PLANS["layers"]), exported, PLANS["layers"])
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()


def test_what_a_run_killed_between_two_renames_put_aside_comes_back(exported, dead_pid):
    before = contents(exported)
    exported.rename(exported.with_name(f".{exported.name}.replaced-{socket.gethostname()}-{dead_pid}"))
    clean_leftovers(exported.parent)
    assert contents(exported) == before


EXPORT_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from sightline.commands.messages import message_of
from tests.sightline.export.models import PLANS, export, make
plan = PLANS["layers"]
whole = export(make(plan), Path(sys.argv[1]) / "whole", plan)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = (whole / "model.safetensors").stat().st_size - (sys.argv[2] == "model.safetensors")
assert limit < (whole / "model.ckpt").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    export(make(plan), Path(sys.argv[1]) / "second", plan)
except Exception as error:
    print(message_of(error))
"""


@pytest.mark.parametrize("file", ["model.safetensors", "model.ckpt"])
def test_a_full_disk_is_said_in_one_line(tmp_path, file):
    """The system refuses larger files, in the middle of one, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", EXPORT_ON_A_FULL_DISK, str(tmp_path), file],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("A file could not be written or read: files may not become so large here")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
