import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.video.swin_transformer import SwinTransformer3d

from sightline.backbones import build_backbone
from sightline.checkpoints.loading import CheckpointError, load_weights, read_checkpoint
from tests.conftest import TINY_SWIN


class Hostile:
    """Creates a file when it is unpickled the usual way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.fixture
def torchvision_file(tmp_path: Path) -> Path:
    model = SwinTransformer3d([2, 4, 4], 16, [2, 2], [2, 4], [2, 4, 4], num_classes=400)
    torch.save(model.state_dict(), tmp_path / "swin3d.pth")
    return tmp_path / "swin3d.pth"


def test_torchvision_file_with_other_classes(torchvision_file):
    backbone = build_backbone("video_swin_demo", 5, TINY_SWIN)
    fresh_head = backbone.head.weight.clone()
    report = load_weights(backbone, torchvision_file)
    assert report.left_out == ("head.weight", "head.bias")
    assert report.fresh == ("head.weight", "head.bias")
    assert "Left out: head.weight, head.bias" in str(report)
    stored = torch.load(torchvision_file)
    assert torch.equal(backbone.features["0"]["1"].attn.qkv.weight, stored["features.0.1.attn.qkv.weight"])
    assert torch.equal(backbone.head.weight, fresh_head)
    assert backbone.record.source == "swin3d.pth (torchvision Video Swin state dict)"


def test_the_same_number_of_classes_takes_the_classifier_too(torchvision_file):
    backbone = build_backbone("video_swin_demo", 400, TINY_SWIN)
    report = load_weights(backbone, torchvision_file)
    assert report.left_out == ()
    assert report.loaded == len(backbone.state_dict())


def test_safetensors(torchvision_file, tmp_path):
    save_file(torch.load(torchvision_file), tmp_path / "swin3d.safetensors")
    backbone = build_backbone("video_swin_demo", 400, TINY_SWIN)
    assert load_weights(backbone, tmp_path / "swin3d.safetensors").fresh == ()


def test_weights_saved_from_several_gpus(torchvision_file, tmp_path):
    torch.save({f"module.{k}": v for k, v in torch.load(torchvision_file).items()}, tmp_path / "ddp.pth")
    assert load_weights(build_backbone("video_swin_demo", 400, TINY_SWIN), tmp_path / "ddp.pth").fresh == ()


def test_computed_entries_may_be_missing_or_too_many_but_nothing_else(torchvision_file, tmp_path):
    backbone = build_backbone("video_swin_demo", 400, TINY_SWIN)
    index = "features.0.0.attn.relative_position_index"
    expected = backbone.state_dict()[index].clone()
    tensors = torch.load(torchvision_file)
    del tensors[index]
    extra = {"features.0.1.attn_mask": torch.zeros(4), "bn.num_batches_tracked": torch.tensor(3)}
    torch.save({**tensors, **extra}, tmp_path / "more.pth")
    report = load_weights(backbone, tmp_path / "more.pth")
    assert report.unused == tuple(extra)
    assert "In the file and not used: features.0.1.attn_mask, bn.num_batches_tracked" in str(report)
    assert report.fresh == ()
    assert torch.equal(backbone.state_dict()[index], expected)
    torch.save({**tensors, "gamma": torch.ones(16)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"1 of the file's \d+ are unknown, e\.g\. gamma"):
        load_weights(backbone, tmp_path / "more.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 32}, "another shape, e.g. patch_embed.proj.weight"),
        ({"depths": [2, 4]}, "are missing, e.g. features.2.2"),
        ({"depths": [2], "heads": [2]}, "are unknown, e.g. features.1"),
        ({"window": [2, 7, 7]}, "another shape.*relative_position"),
    ],
)
def test_another_architecture_is_refused_and_nothing_changes(torchvision_file, change, message):
    backbone = build_backbone("video_swin_demo", 5, {**TINY_SWIN, **change})
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(backbone, torchvision_file)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path):
    target = tmp_path / "was-run"
    torch.save({"state_dict": {"x": torch.ones(1)}, "more": Hostile(target)}, tmp_path / "hostile.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Hostile(target)))
    for name in ("hostile.pth", "plain.pkl"):
        with pytest.raises(CheckpointError, match="more than tensors"):
            read_checkpoint(tmp_path / name)
    assert not target.exists()


def test_command_line_arguments_beside_the_weights_do_no_harm(torchvision_file, tmp_path):
    content = {"model": torch.load(torchvision_file), "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"))}
    torch.save(content, tmp_path / "args.pth")
    backbone = build_backbone("video_swin_demo", 400, TINY_SWIN)
    assert load_weights(backbone, tmp_path / "args.pth").loaded == len(backbone.state_dict())
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # allowed for this one file only


def test_code_among_the_arguments_is_refused_and_not_run(torchvision_file, tmp_path):
    target = tmp_path / "was-run"
    arguments = argparse.Namespace(lr=0.1, more=Hostile(target))
    torch.save({"model": torch.load(torchvision_file), "args": arguments}, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match=r"it names (_?io)\.open") as caught:
        read_checkpoint(tmp_path / "hostile.pth")
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_what_else_a_file_holds_is_named(torchvision_file, tmp_path):
    torch.save({"model": torch.load(torchvision_file), "best": np.float64(0.8)}, tmp_path / "numpy.pth")
    with pytest.raises(CheckpointError, match=r"it names .*numpy.*Save a plain state dict"):
        read_checkpoint(tmp_path / "numpy.pth")


def test_what_is_no_checkpoint_is_refused(torchvision_file, tmp_path):
    content = torchvision_file.read_bytes()
    for name, data, message in [
        ("short.pth", content[: len(content) // 2], "not a whole checkpoint"),
        ("empty.pth", b"", "not a whole checkpoint"),
        ("short.safetensors", b"\x08\x00\x00", "not a whole safetensors"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"holds no state dict.*epoch"):
        load_weights(build_backbone("video_swin_demo", 5), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is an address"):
        read_checkpoint("https://example.org/model.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing.pth")
