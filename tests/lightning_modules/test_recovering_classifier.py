import dataclasses
import math

import pytest
import torch

from lightning_modules import RecoveringClassifier
from lightning_modules.recovering_classifier import distillation_loss, load_teacher
from sightline.backbones import build_backbone
from sightline.export.reading import load_exported
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan, unremoved_plan
from sightline.tokens import TokenReduction
from tests.conftest import TINY_SWIN, randomise
from tests.lightning_modules.test_video_classifier import batch_of, make_trainer

CLASSES = ("a", "b", "c")


@pytest.fixture
def exported(tmp_path):
    """Folders of a full model and of one without a layer."""
    full = randomise(build_backbone("video_swin_demo", len(CLASSES), TINY_SWIN))
    full.set_record(dataclasses.replace(full.record, class_names=CLASSES))
    folders = {}
    for name, removed in (("teacher", ()), ("student", (1,))):
        plan = PruningPlan("relevance", "r", "lowest" if removed else "none", len(removed), removed)
        folders[name] = str(export_model(
            full.without(removed), tmp_path / name, name="video_swin_demo", options=TINY_SWIN, plan=plan,
            provenance={}, sampling={},
        ))  # fmt: skip
    return folders


def make_module(exported, **changes) -> RecoveringClassifier:
    told = {"num_classes": 3, "class_names": list(CLASSES), "frames": 4, "size": 32}
    return RecoveringClassifier(**{**exported, **told, **changes})


def test_the_loss_by_hand():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    # At temperature 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2; 2^2 times KL.
    wanted = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(wanted, abs=1e-6)
    assert distillation_loss(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)


def set_up(module, tmp_path):
    module.trainer = make_trainer(tmp_path, max_epochs=1)
    module.setup("fit")
    return module.eval()


def test_labels_and_teacher_share_the_loss(exported, tmp_path):
    batch = batch_of([0, 2])
    batch["clip"] = torch.randint(256, batch["clip"].shape, dtype=torch.uint8)
    modules = {w: set_up(make_module(exported, teacher_weight=w), tmp_path) for w in (0.0, 0.25, 1.0)}
    logits = modules[0.0](batch["clip"])
    loss = {weight: module.training_loss(logits, batch).item() for weight, module in modules.items()}
    assert loss[0.0] == pytest.approx(torch.nn.functional.cross_entropy(logits, batch["label"]).item())
    teacher = load_teacher(exported["teacher"])(batch["clip"])
    assert loss[1.0] == pytest.approx(distillation_loss(logits, teacher, 2.0).item(), rel=1e-5)
    assert loss[1.0] > 1e-3
    assert loss[0.25] == pytest.approx(0.75 * loss[0.0] + 0.25 * loss[1.0], rel=1e-5)


def test_the_teacher_is_neither_trained_nor_saved(exported, tmp_path):
    module = set_up(make_module(exported), tmp_path)
    assert {info.index for info in module.backbone.layers} == {0, 2, 3}
    (teacher,) = module._teachers
    assert not any(p.requires_grad for p in teacher.parameters())
    ours = {id(p) for p in module.parameters()}
    assert not ours & {id(p) for p in teacher.parameters()}
    module.train()
    assert not teacher.training
    module.training_loss(module(batch_of([0, 1])["clip"]), batch_of([0, 1])).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_it_starts_from_the_student_s_weights(exported, tmp_path):
    module = set_up(make_module(exported), tmp_path)
    student = load_teacher(exported["student"])
    clips = torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    assert torch.equal(module(clips), student(clips))


def test_what_does_not_fit_is_refused(exported, tmp_path):
    with pytest.raises(ValueError, match=r"Set data\.frames to 4"):
        make_module(exported, frames=8)
    with pytest.raises(ValueError, match="other classes"):
        make_module(exported, class_names=["a", "b", "d"])
    with pytest.raises(ValueError, match="teacher_weight from 0 to 1"):
        make_module(exported, teacher_weight=1.5)
    with pytest.raises(FileNotFoundError, match="no teacher at"):
        set_up(make_module(exported, teacher=str(tmp_path / "none.ckpt")), tmp_path)
    other = build_backbone("video_swin_demo", 3, TINY_SWIN)
    other.set_record(dataclasses.replace(other.record, class_names=("x", "y", "z")))
    plan = PruningPlan("relevance", "r", "none", 0)
    folder = export_model(
        other, tmp_path / "other", name="video_swin_demo", options=TINY_SWIN, plan=plan, provenance={}, sampling={}
    )
    with pytest.raises(ValueError, match="other clips or classes"):
        set_up(make_module(exported, teacher=str(folder)), tmp_path)


def test_a_student_recovers_with_its_tokens_and_a_teacher_has_all(exported, tmp_path):
    tokens = TokenReduction.of("random", {"kept": 0.3})
    full = load_exported(exported["teacher"]).backbone
    folder = export_model(
        full, tmp_path / "reduced", name="video_swin_demo", options=TINY_SWIN, plan=unremoved_plan(tokens),
        provenance={}, sampling={},
    )  # fmt: skip
    module = set_up(make_module({**exported, "student": str(folder)}), tmp_path)
    assert module.hparams["tokens"] == tokens.plain()
    clips = torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(module(clips), full(clips, reducer=tokens.build()), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="Pass the full model, which has all tokens"):
        load_teacher(str(folder))
    other = {"name": "random", "options": {"kept": 0.6}}
    for student, own in ((str(folder), "random_kept0.3"), (exported["student"], "all tokens")):
        with pytest.raises(ValueError, match=f"runs with {own}, but tokens ask for random_kept0.6. Leave tokens out"):
            make_module({**exported, "student": student}, tokens=other)
    make_module({**exported, "student": str(folder)}, tokens={"name": "random", "options": {"kept": 0.3}})
