"""Weights that hold NaN or infinite values are refused by every way of loading them."""

import json

import pytest
import safetensors.torch
import torch

from lightning_modules.checkpoint_io import SafeCheckpointIO
from sightline.backbones import build_backbone
from sightline.checkpoints.files import CheckpointError
from sightline.checkpoints.finite import describe_not_finite
from sightline.checkpoints.loading import load_weights
from sightline.checkpoints.trained import model_of
from sightline.export.reading import load_exported, sha256
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan
from tests.conftest import TINY_SWIN

OPTIONS = {key: value for key, value in TINY_SWIN.items() if key not in ("frames", "size")}
TOLD = r"2 values in (norm\.bias \(1 of 32\)|, |head\.weight \(1 of 96\)){3} of 67 tensors"


def test_what_is_not_finite_is_counted_and_the_first_are_named():
    tensors = {
        "good": torch.ones(3),
        "a": torch.tensor([1.0, float("nan"), float("inf"), -float("inf")]),
        "whole": torch.tensor([1]),
        "b": torch.full((1200,), float("nan"), dtype=torch.bfloat16),
    }
    assert describe_not_finite({"good": tensors["good"], "whole": tensors["whole"]}) == ""
    assert describe_not_finite(tensors) == "1,203 values in a (3 of 4), b (1,200 of 1,200) of 4 tensors"
    assert describe_not_finite(tensors, most=1) == "1,203 values in a (3 of 4) and 1 more of 4 tensors"
    one = {"a": torch.tensor([float("nan")])}
    assert describe_not_finite(one) == "1 value in a (1 of 1) of 1 tensors"


@pytest.fixture
def spoilt():
    """A model of three classes with two values that are not finite."""
    backbone = build_backbone("video_swin_demo", 3, TINY_SWIN)
    with torch.no_grad():
        backbone.norm.bias[7] = float("inf")
        backbone.head.weight[1, 2] = float("nan")
    return backbone


def test_other_peoples_weights(spoilt, tmp_path):
    torch.save(spoilt.state_dict(), tmp_path / "weights.pth")
    safetensors.torch.save_file(spoilt.state_dict(), tmp_path / "weights.safetensors")
    model = build_backbone("video_swin_demo", 3, TINY_SWIN)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("weights.pth", "weights.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name} holds weights that are not finite: {TOLD}"):
            load_weights(model, tmp_path / name)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # A classifier of other classes is not taken over, whatever it holds.
    with torch.no_grad():
        spoilt.norm.bias[7] = 0
    torch.save(spoilt.state_dict(), tmp_path / "weights.pth")
    load_weights(build_backbone("video_swin_demo", 5, TINY_SWIN), tmp_path / "weights.pth")


def test_checkpoints_of_a_run(spoilt, tmp_path):
    structure = {"backbone": "video_swin_demo", "frames": 4, "size": 32, "options": OPTIONS, "num_classes": 3}
    content = {
        "hyper_parameters": structure,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"backbone.{name}": tensor for name, tensor in spoilt.state_dict().items()},
    }
    with pytest.raises(CheckpointError, match=f"run's file holds weights that are not finite: {TOLD}"):
        model_of(content, "run's file")
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"best\.ckpt holds weights that are not finite: 2 values in backbone"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "best.ckpt")


def test_exported_folders(spoilt, tmp_path):
    sound = build_backbone("video_swin_demo", 3, TINY_SWIN)
    plan = PruningPlan("relevance", "r", "none", 0)
    folder = export_model(
        sound, tmp_path / "exported", name="video_swin_demo", options=TINY_SWIN, plan=plan, provenance={}, sampling={}
    )
    weights = safetensors.torch.save(spoilt.state_dict())
    (folder / "model.safetensors").write_bytes(weights)
    told = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**told, "sha256": {"model.safetensors": sha256(weights)}}))
    with pytest.raises(CheckpointError, match=rf"model\.safetensors holds weights that are not finite: {TOLD}"):
        load_exported(folder)
