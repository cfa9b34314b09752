"""Every form of checkpoint gives the logits of the library that it comes from, and can be fine-tuned."""

import pytest
import torch
from torchvision.models.video.swin_transformer import SwinTransformer3d

from lightning_modules import VideoClassifier
from sightline.backbones import build_backbone
from sightline.checkpoints.loading import load_weights
from tests.sightline.checkpoints.official_files import CASES, CLASSES, FITTING, Case, timesformer

INPUT = {"frames": 4, "size": 32}
each_form = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def clips(seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def built(case: Case, classes: int = CLASSES):
    name, options = FITTING[case.reference]
    return build_backbone(name, classes, {**options, **INPUT})


@torch.no_grad()
def expected_logits(model: torch.nn.Module, normalisation: tuple) -> torch.Tensor:
    """What the reference library makes of the same clips."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in normalisation)
    pixels = (clips() / 255 - mean) / std
    if hasattr(model, "config"):  # Hugging Face's models take frames first
        return model(pixel_values=pixels.transpose(1, 2)).logits
    return model(pixels)


@each_form
def test_logits_are_those_of_the_reference_library(case: Case, tmp_path):
    reference = case.reference()
    backbone = built(case).eval()
    report = load_weights(backbone, case.write(reference, tmp_path))
    assert report.form == case.form
    if case.headless:
        assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
        backbone.fc_norm.load_state_dict(reference.fc_norm.state_dict())
        backbone.head.load_state_dict(reference.classifier.state_dict())
    else:
        assert report.fresh == ()
        assert report.loaded == len(backbone.state_dict())
    with torch.no_grad():
        found = backbone(clips())
    expected = expected_logits(reference, case.normalisation)
    assert expected.std() > 0.1  # logits large enough for the tolerance to mean something
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # single precision, other order of sums


@each_form
def test_the_record_says_how_the_weights_were_trained(case: Case, tmp_path):
    backbone = built(case)
    report = load_weights(backbone, case.write(case.reference(), tmp_path))
    record = backbone.record
    assert (record.mean, record.std) == case.normalisation
    assert (record.source_frames, record.source_stride) == (case.frames, case.stride)
    assert record.source_classes == case.classes
    assert record.source.endswith(f"({case.form})")
    assert ("the file does not say" in str(report)) != case.says_normalisation


@each_form
def test_fine_tuning_starts_from_it(case: Case, tmp_path):
    name, options = FITTING[case.reference]
    path = case.write(case.reference(), tmp_path)
    module = VideoClassifier(3, ["x", "y", "z"], name, **INPUT, options=options, weights=str(path))
    module.setup("fit")
    module.eval()  # without dropout, so that the loss falls for sure; gradients are the same kind
    assert module.backbone.record.class_names == ("x", "y", "z")
    assert module.backbone.record.source_frames == case.frames
    before = {key: value.clone() for key, value in module.backbone.state_dict().items()}
    optimizer = torch.optim.AdamW(module.backbone.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = module.loss(module(clips()), torch.tensor([0, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    changed = {key for key, value in module.backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key, parameter in module.backbone.named_parameters()}


@each_form
def test_another_number_of_classes_leaves_the_classifier_out(case: Case, tmp_path):
    backbone = built(case, 3)
    keys = backbone.classifier_keys()
    fresh = backbone.state_dict()[keys[0]].clone()
    report = load_weights(backbone, case.write(case.reference(), tmp_path))
    assert report.left_out == (() if case.headless else keys)
    assert set(keys) <= set(report.fresh)
    assert torch.equal(backbone.state_dict()[keys[0]], fresh)


def test_what_pretraining_needs_and_fine_tuning_does_not_is_listed(tmp_path):
    case = CASES["videomae-pretraining"]
    report = load_weights(built(case), case.write(case.reference(), tmp_path))
    assert set(report.unused) == {
        "encoder.norm.weight", "encoder.norm.bias", "mask_token", "encoder_to_decoder.weight",
        "decoder.blocks.0.attn.q_bias",
    }  # fmt: skip
    assert "mask_token" in str(report)


def test_more_frames_are_interpolated_and_reported(tmp_path):
    reference = timesformer()
    path = CASES["timesformer-official"].write(reference, tmp_path)
    name, options = FITTING[timesformer]
    backbone = build_backbone(name, CLASSES, {**options, "frames": 8, "size": 32})
    report = load_weights(backbone, path)
    stored = reference.state_dict()["timesformer.embeddings.time_embeddings"]
    assert torch.equal(backbone.time_embed, stored.repeat_interleave(2, dim=1))  # nearest: every row twice
    assert len(report.interpolated) == 1
    assert report.interpolated[0] in str(report)
    assert backbone.record.source_frames == 4


@pytest.mark.parametrize(("frames", "stride"), [(8, 32), (16, 16), (96, 4), (4, None)])
def test_released_timesformers_tell_their_stride_by_their_frames(frames, stride, tmp_path):
    path = CASES["timesformer-official"].write(timesformer(), tmp_path)
    content = torch.load(path)
    content["model_state"]["model.time_embed"] = torch.zeros(1, frames, 32)
    torch.save(content, path)
    backbone = built(CASES["timesformer-official"])
    load_weights(backbone, path)
    assert (backbone.record.source_frames, backbone.record.source_stride) == (frames, stride)


@pytest.mark.parametrize(
    "cfg",
    [
        "DATA: [",
        "DATA:\n  MEAN: !!python/tuple [1, 2, 3]",
        "just words",
        "DATA:\n  MEAN: [a, b, c]\n  STD: [0, 0, 0]",
        7,
    ],
)
def test_a_cfg_that_makes_no_sense_counts_as_not_there(cfg, tmp_path):
    path = CASES["timesformer-official"].write(timesformer(), tmp_path)
    torch.save({**torch.load(path), "cfg": cfg}, path)
    backbone = built(CASES["timesformer-official"])
    load_weights(backbone, path)
    assert backbone.record.mean == (0.45, 0.45, 0.45)
    assert backbone.record.std == (0.225, 0.225, 0.225)
    assert backbone.record.source_frames == 4


def test_kinetics_names_come_with_torchvisions_400_classes_only(tmp_path):
    backbone = built(CASES["swin-torchvision"])
    for classes, first in ((400, ("abseiling",)), (401, ())):
        model = SwinTransformer3d([2, 4, 4], 16, [2, 2], [2, 4], [2, 4, 4], num_classes=classes)
        torch.save(model.state_dict(), tmp_path / "swin.pth")
        load_weights(backbone, tmp_path / "swin.pth")
        assert backbone.record.source_classes[:1] == first
