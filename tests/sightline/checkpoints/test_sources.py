"""What is told and what is refused beyond names and shapes: our own files, downloads, other architectures."""

import json
from dataclasses import replace
from urllib.error import URLError

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import WeightsEnum
from torchvision.models.video import Swin3D_S_Weights
from torchvision.models.video.swin_transformer import SwinTransformer3d

from lightning_modules import VideoClassifier
from sightline.backbones import VARIANTS, build_backbone
from sightline.checkpoints.loading import CheckpointError, load_weights
from sightline.export.reading import load_exported
from sightline.export.writing import export_model
from sightline.pruning import PruningPlan, unpruned_plan
from sightline.types import ModelRecord, Unit
from tests.conftest import TINY_SWIN, randomise
from tests.sightline.checkpoints.official_files import CASES, FITTING, hugging_face, timesformer, videomae

OPTIONS = {k: v for k, v in TINY_SWIN.items() if k not in ("frames", "size")}
RECORD = ModelRecord((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ("a", "b", "c"), "a test", 8, 32, ("x", "y"))
CUT = {"removed_layers": [1], "removed_heads": [[2, "attention", 3]]}


def make_module(**changes) -> VideoClassifier:
    structure = {"num_classes": 3, "class_names": ["a", "b", "c"], "backbone": "video_swin_demo", "options": OPTIONS}
    return VideoClassifier(**{**structure, "frames": 4, "size": 32, **changes})


def trained(tmp_path, **changes):
    """A run's checkpoint, and the module that it was made from."""
    module = make_module(**changes)
    randomise(module.backbone).set_record(RECORD)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    return tmp_path / "last.ckpt", module


def exported(tmp_path, plan=None):
    """An exported folder, and the backbone in it."""
    plan = plan or unpruned_plan()
    backbone = randomise(build_backbone("video_swin_demo", 3, TINY_SWIN))
    backbone.set_record(RECORD)
    backbone = backbone.without(plan.removed_layers).without_heads(plan.removed_heads)
    folder = tmp_path / "pruned" / plan.plan_id
    export_model(
        backbone, folder, name="video_swin_demo", options=TINY_SWIN, plan=plan, provenance={}, sampling={"frames": 4},
        hyper_parameters={"backbone": "video_swin_demo", "removed_layers": list(plan.removed_layers)},
    )  # fmt: skip
    return folder, backbone


def same(a, b) -> bool:
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


# Our own files -------------------------------------------------------------------------------------------------------


def test_a_runs_checkpoint(tmp_path):
    path, module = trained(tmp_path)
    fresh = make_module(weights=str(path))
    fresh.setup("fit")
    record = fresh.backbone.record
    assert same(fresh.backbone, module.backbone)
    assert (record.mean, record.std, record.class_names) == (RECORD.mean, RECORD.std, ("a", "b", "c"))
    assert (record.source_frames, record.source_classes) == (4, ("a", "b", "c"))
    assert record.source == "last.ckpt (checkpoint of a Sightline run)"


@pytest.mark.parametrize("name", ["", "model.safetensors", "model.ckpt"])
def test_an_exported_model(name, tmp_path, tiny_clips):
    folder, backbone = exported(tmp_path)
    other = build_backbone("video_swin_demo", 3, TINY_SWIN)
    report = load_weights(other, folder / name)
    assert report.form == ("checkpoint of a Sightline run" if name.endswith("ckpt") else "exported Sightline model")
    assert torch.equal(other.eval()(tiny_clips), backbone(tiny_clips))
    if not name.endswith("ckpt"):
        assert (other.record.source_frames, other.record.source_classes) == (4, ("a", "b", "c"))


def test_the_same_number_of_other_classes_leaves_the_classifier_out(tmp_path):
    path, _ = trained(tmp_path)
    for names, left_out in ((["A", "b_", "c"], ()), (["b", "a", "c"], ("head.weight", "head.bias"))):
        module = make_module(class_names=names)
        assert load_weights(module.backbone, path).left_out == left_out


def test_a_smaller_model_into_a_full_one_is_refused_with_advice(tmp_path):
    path, module = trained(tmp_path, **CUT)
    folder, backbone = exported(tmp_path, PruningPlan("relevance", "r", "lowest", 1, (1,)))
    for weights in (path, folder, folder / "model.ckpt"):
        with pytest.raises(CheckpointError, match=r"without layers 1.*--ckpt_path.*removed_layers: \[1\]"):
            load_weights(build_backbone("video_swin_demo", 3, TINY_SWIN), weights)
    smaller = make_module(weights=str(path), **CUT)
    smaller.setup("fit")
    assert same(smaller.backbone, module.backbone)
    smaller = make_module(weights=str(folder), removed_layers=[1])
    smaller.setup("fit")
    assert same(smaller.backbone, backbone)


def test_heads_that_were_cut_out_are_named(tmp_path):
    folder, _ = exported(tmp_path, PruningPlan("relevance", "r", "lowest", 1, removed_heads=(Unit(2, "attention", 3),)))
    with pytest.raises(CheckpointError, match=r"without layer 2 attention head 3.*\[\[2, 'attention', 3\]\]"):
        load_weights(build_backbone("video_swin_demo", 3, TINY_SWIN), folder)


def test_the_record_survives_checkpoint_and_export(tmp_path):
    path, _ = trained(tmp_path)
    content = torch.load(path, weights_only=True)
    module = make_module()
    module.on_load_checkpoint(content)
    assert module.backbone.record == RECORD
    folder, _ = exported(tmp_path)
    assert load_exported(folder).backbone.record == RECORD


def test_files_from_before_these_facts_were_kept_still_load(tmp_path):
    unknown = replace(RECORD, source_frames=None, source_stride=None, source_classes=())
    path, _ = trained(tmp_path)
    content = torch.load(path, weights_only=True)
    content["record"] = {key: content["record"][key] for key in ("mean", "std", "source")}
    module = make_module()
    module.on_load_checkpoint(content)
    assert module.backbone.record == unknown
    folder, _ = exported(tmp_path)
    description = json.loads((folder / "model.json").read_text())
    for key in ("source_frames", "source_stride", "source_classes"):
        del description[key]
    (folder / "model.json").write_text(json.dumps(description))
    assert load_exported(folder).backbone.record == unknown


# torchvision's download ----------------------------------------------------------------------------------------------


def test_torchvisions_download(monkeypatch):
    asked = []

    def get_state_dict(self, **options):
        asked.append((self, options))
        return SwinTransformer3d([2, 4, 4], 16, [2, 2], [2, 4], [2, 4, 4]).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    module = make_module(backbone="video_swin_s", weights="torchvision")
    module.setup("fit")
    assert asked == [(Swin3D_S_Weights.KINETICS400_V1, {"progress": True, "check_hash": True, "weights_only": True})]
    assert module.backbone.record.source_classes[0] == "abseiling"
    assert module.backbone.record.source == "swin3d_s-da41c237.pth (torchvision Video Swin state dict)"


def test_every_variant_of_torchvision_names_its_weights():
    named = {name: str(variant.torchvision) for name, variant in VARIANTS.items() if variant.torchvision is not None}
    assert named == {
        "video_swin_t": "Swin3D_T_Weights.KINETICS400_V1",
        "video_swin_s": "Swin3D_S_Weights.KINETICS400_V1",
        "video_swin_b": "Swin3D_B_Weights.KINETICS400_V1",
        "mvit_v2_s": "MViT_V2_S_Weights.KINETICS400_V1",
    }


def test_no_network_is_told_in_one_line(monkeypatch):
    def get_state_dict(self, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    with pytest.raises(CheckpointError, match=r"could not be downloaded.*https://\S+swin3d_s") as caught:
        make_module(backbone="video_swin_s", weights="torchvision").setup("fit")
    assert "\n" not in str(caught.value)


def test_what_torchvision_does_not_have():
    with pytest.raises(CheckpointError, match=r"no weights for video_swin_demo, only for video_swin_t.*mvit_v2_s"):
        make_module(weights="torchvision").setup("fit")


# Other architectures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_another_family_is_named(name, tmp_path):
    case = CASES[name]
    other = next(reference for reference in FITTING if FITTING[reference][0] != FITTING[case.reference][0])
    backbone = build_backbone(FITTING[other][0], 7, {**FITTING[other][1], "frames": 4, "size": 32})
    suggestion = FITTING[case.reference][0]
    with pytest.raises(CheckpointError, match=rf"an? {case.form} .*the model is {backbone.family}.*{suggestion}"):
        load_weights(backbone, case.write(case.reference(), tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 1}, r"unknown, e\.g\. blocks\.1"),
        ({"depth": 3}, r"missing, e\.g\. blocks\.2"),
        ({"width": 64}, r"another shape, e\.g\. pos_embed"),
        ({"patch": 8}, r"another shape, e\.g\. patch_embed"),
        ({"attention": "joint"}, r"unknown, e\.g\. blocks\.0\.temporal_norm1"),
    ],
)
def test_another_size_is_refused_in_one_line(change, message, tmp_path):
    name, options = FITTING[timesformer]
    backbone = build_backbone(name, 7, {**options, "frames": 4, "size": 32, **change})
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"official TimeSformer checkpoint, does not fit.*{message}") as caught:
        load_weights(backbone, CASES["timesformer-official"].write(timesformer(), tmp_path))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_another_number_of_heads_has_the_same_shapes_and_is_refused(tmp_path):
    name, options = FITTING[timesformer]
    backbone = build_backbone(name, 7, {**options, "heads": 2, "frames": 4, "size": 32})
    with pytest.raises(CheckpointError, match="with 4 attention heads per layer; the model has 2"):
        load_weights(backbone, hugging_face(timesformer(), tmp_path))


def test_a_videomae_without_mean_pooling_is_refused(tmp_path):
    name, options = FITTING[videomae]
    backbone = build_backbone(name, 7, {**options, "frames": 4, "size": 32})
    with pytest.raises(CheckpointError, match=r"missing, e\.g\. fc_norm"):
        load_weights(backbone, hugging_face(videomae(use_mean_pooling=False), tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer1.0.conv1.weight", "fc.weight"], r"in no known form; its names are layer1.*official TimeSformer"),
        (["cls_positional_encoding.pos_embed_spatial"], "MViT version 1"),
        (["pos_encoding.spatial_pos", "conv_proj.weight"], "MViT version 1"),
        (["backbone.transformer_layers.layers.0.norm.weight"], "mmaction2's TimeSformer"),
    ],
)
def test_unknown_files_are_told_what_is_known(names, message, tmp_path):
    torch.save({"state_dict": {name: torch.zeros(2) for name in names}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        load_weights(build_backbone("video_swin_demo", 3, TINY_SWIN), tmp_path / "other.pth")


# Folders -------------------------------------------------------------------------------------------------------------


def test_folders_that_cannot_be_used(tmp_path):
    backbone = build_backbone("video_swin_demo", 3, TINY_SWIN)
    with pytest.raises(CheckpointError, match=r"no model\.safetensors and no pytorch_model\.bin"):
        load_weights(backbone, tmp_path)
    folder, _ = exported(tmp_path)
    (folder / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match="not whole JSON"):
        load_weights(backbone, folder)


def test_descriptions_beside_a_file_of_another_name_are_not_its_own(tmp_path):
    folder, backbone = exported(tmp_path)
    save_file(load_file(folder / "model.safetensors"), folder / "copy.safetensors")
    report = load_weights(backbone, folder / "copy.safetensors")
    assert report.form == "torchvision Video Swin state dict"
    assert "usual for this form" in str(report)
