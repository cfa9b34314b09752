import json
import math

import lightning as L
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR
from torchvision.models.video.swin_transformer import SwinTransformer3d

from datamodules import SyntheticCabin
from lightning_modules import VideoClassifier
from lightning_modules.checkpoint_io import SafeCheckpointIO
from lightning_modules.video_classifier import rate_factor
from sightline.checkpoints.loading import CheckpointError
from sightline.tokens import KeepRandom
from tests.conftest import CABIN, TINY_SWIN

OPTIONS = {k: v for k, v in TINY_SWIN.items() if k not in ("frames", "size")}
STRUCTURE = {"num_classes": 2, "class_names": ["a", "b"], "backbone": "video_swin_demo", "frames": 4, "size": 32}


def make_module(**changes) -> VideoClassifier:
    return VideoClassifier(**{**STRUCTURE, "options": OPTIONS, **changes})


def make_trainer(tmp_path, **options) -> L.Trainer:
    defaults = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        default_root_dir=tmp_path,
        use_distributed_sampler=False,
        plugins=[SafeCheckpointIO()],
        **{**defaults, **options},
    )


def batch_of(labels: list[int]) -> dict:
    clips = torch.zeros(len(labels), 3, 4, 32, 32, dtype=torch.uint8)
    names = [str(i) for i in range(len(labels))]
    return {"clip": clips, "label": torch.tensor(labels), "sample_id": names, "group": names, "unreadable": []}


def test_metrics_by_hand():
    module = make_module(num_classes=3, class_names=None)
    predictions = iter([[0, 0, 1], [2, 2]])
    module.forward = lambda clips: torch.nn.functional.one_hot(torch.tensor(next(predictions)), 3).float()
    module.validation_step(batch_of([0, 1, 1]), 0)  # right, wrong, right
    module.validation_step(batch_of([2, 0]), 1)  # right, wrong
    module.validation_step(batch_of([]), 2)  # a batch of which nothing could be read
    found = module.val_metrics.compute()
    assert found["val/top1"] == pytest.approx(3 / 5)
    assert found["val/mean_class_acc"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    # -log softmax of (1, 0, 0) at the right place 3 times, at a wrong one twice
    right = math.log(math.e + 2) - 1
    assert module.val_loss.compute() == pytest.approx((3 * right + 2 * (right + 1)) / 5)
    assert "val/top5" not in found
    assert "val/top5" in make_module(num_classes=6, class_names=None).val_metrics.compute()


def test_a_class_without_clips_is_left_out_of_the_mean_even_where_it_is_predicted(monkeypatch):
    module = make_module(num_classes=6, class_names=None)
    predictions = iter([[0, 3], [1, 0, 5]])
    module.forward = lambda clips: torch.nn.functional.one_hot(torch.tensor(next(predictions)), 6).float()
    logged = {}
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.test_step(batch_of([0, 0]), 0)  # right; wrong, as a class that no clip has
    module.test_step(batch_of([1, 1, 4]), 1)  # right; wrong; wrong, as another such class
    module.on_test_epoch_end()
    assert logged["test/mean_class_acc"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert {name: float(value) for name, value in logged.items() if "/class/" in name} == {
        "test/class/0": 0.5, "test/class/1": 0.5, "test/class/4": 0.0,
    }  # fmt: skip
    assert module.test_metrics.compute()["test/mean_class_acc"].isnan()  # all was reset, and no clip is no mean


def test_views_are_averaged_by_hand():
    module = make_module(num_classes=3, class_names=None)
    # Three views each of two samples, as probabilities. The mean decides, not the majority or the mean of the logits.
    views = torch.tensor(
        [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1], [0.1, 0.5, 0.4]]
    )
    # A clip's first pixel says which view it is.
    module.forward = lambda clips: views[clips[:, 0, 0, 0, 0].long()].log() + 7  # logits are known up to a constant
    batch = batch_of([0, 2])
    batch["clip"] = torch.arange(6, dtype=torch.uint8)[:, None, None, None, None].expand(6, 3, 4, 32, 32)
    expected = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.4, 0.4]])
    for step in (module.predict_step, module.test_step):
        found = step(batch, 0)
        assert found["sample_id"] == ["0", "1"]
        torch.testing.assert_close(found["probabilities"], expected)
    assert module.test_metrics.compute()["test/top1"] == 0.5
    assert module.test_loss.compute() == pytest.approx(-(math.log(0.5) + math.log(0.4)) / 2)


def test_one_view_is_the_model_itself():
    module = make_module().eval()
    batch = {**batch_of([0, 1, 1]), "clip": torch.randint(0, 256, (3, 3, 4, 32, 32), dtype=torch.uint8)}
    with torch.no_grad():
        assert torch.equal(module.predict_step(batch, 0)["probabilities"], module(batch["clip"]).softmax(-1))


def test_nothing_readable_gives_no_predictions():
    found = make_module().test_step(batch_of([]), 0)
    assert found["sample_id"] == []
    assert found["probabilities"].shape == (0, 2)


@pytest.mark.parametrize(
    ("step", "schedule", "expected"),
    [(0, "constant", 1 / 5), (3, "constant", 4 / 5), (4, "constant", 1), (19, "constant", 1),
     (4, "cosine", 1), (12, "cosine", 0.5), (20, "cosine", 0), (25, "cosine", 0)],
)  # fmt: skip
def test_learning_rate_by_hand(step, schedule, expected):
    assert rate_factor(step, total=20, warmup=4, schedule=schedule) == pytest.approx(expected)


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (1, 8), (4, 20)])
def test_learning_rates_are_those_of_torchs_schedulers_one_after_the_other(warmup, total):
    ours, theirs = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4) for _ in range(2))
    own = LambdaLR(ours, lambda step: rate_factor(step, total, warmup, "cosine"))
    parts = [LinearLR(theirs, 1 / (warmup + 1), total_iters=warmup), CosineAnnealingLR(theirs, total - warmup)]
    composed = SequentialLR(theirs, parts, milestones=[warmup]) if warmup else parts[1]
    for _ in range(total):
        # The composed ones multiply their way from step to step, in float64.
        assert own.get_last_lr() == pytest.approx(composed.get_last_lr(), rel=1e-12)
        for optimizer, scheduler in ((ours, own), (theirs, composed)):
            optimizer.step()
            scheduler.step()


def test_a_resumed_run_follows_the_length_it_has_now():
    def scheduler(total: int) -> LambdaLR:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return LambdaLR(optimizer, lambda step: rate_factor(step, total, 0, "cosine"))

    first = scheduler(10)
    for _ in range(10):
        first.optimizer.step()
        first.step()
    longer = scheduler(20)
    longer.load_state_dict(first.state_dict())
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr() == pytest.approx([(1 + math.cos(math.pi * 11 / 20)) / 2])


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_weights_are_loaded_where_there_is_no_checkpoint(tmp_path, stage):
    torch.save(SwinTransformer3d([2, 4, 4], 16, [2, 2], [2, 4], [2, 4, 4]).state_dict(), tmp_path / "k400.pth")
    module = make_module(weights=str(tmp_path / "k400.pth"))
    module.setup(stage)
    assert torch.equal(
        module.backbone.patch_embed.proj.weight, torch.load(tmp_path / "k400.pth")["patch_embed.proj.weight"]
    )


def test_a_pruned_checkpoint_loads_into_the_full_model(tmp_path, caplog):
    pruned = make_module(removed_layers=[1, 2], removed_heads=[[0, "attention", 1]])
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(pruned)
    trainer.save_checkpoint(tmp_path / "pruned.ckpt", weights_only=True)
    clips = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)

    loaded = VideoClassifier.load_from_checkpoint(tmp_path / "pruned.ckpt", weights_only=True).eval()
    assert torch.equal(loaded(clips), pruned.eval()(clips))

    full = make_module()
    content = torch.load(tmp_path / "pruned.ckpt", weights_only=True)
    full.on_load_checkpoint(content)
    full.load_state_dict(content["state_dict"])
    assert "removed_layers=[1, 2]" in caplog.text
    assert [info.index for info in full.backbone.layers] == [0, 3]
    assert full.hparams["removed_layers"] == [1, 2]
    assert torch.equal(full.eval()(clips), pruned(clips))


def test_somebody_elses_checkpoint_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"--model\.weights"):
        make_module().on_load_checkpoint({"state_dict": {}})


def test_other_classes_are_refused():
    stored = {**STRUCTURE, "options": OPTIONS, "removed_layers": None, "removed_heads": None}
    for names, message in [(["a", "c"], "b, c"), (["b", "a"], "another order")]:
        with pytest.raises(ValueError, match=message):
            make_module().on_load_checkpoint({"hyper_parameters": {**stored, "class_names": names}})


def test_another_architecture_under_the_same_name_is_refused():
    stored = {**STRUCTURE, "options": OPTIONS, "removed_layers": None, "removed_heads": None}
    content = {"hyper_parameters": stored, "config": "VideoSwinConfig(depths=(9, 9))"}
    with pytest.raises(ValueError, match="version of Sightline"):
        make_module().on_load_checkpoint(content)


def test_weights_of_others_as_checkpoint_get_advice(tmp_path, cabin_root):
    torch.save(SwinTransformer3d([2, 4, 4], 16, [2, 2], [2, 4], [2, 4, 4]).state_dict(), tmp_path / "k400.pth")
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    with pytest.raises(CheckpointError, match=r"--model\.weights"):
        make_trainer(tmp_path).test(make_module(), data, ckpt_path=str(tmp_path / "k400.pth"))


def test_hostile_checkpoints_are_refused_by_the_trainer(tmp_path, cabin_root):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "was-run"), "w"))

    torch.save({"state_dict": {}, "x": Hostile()}, tmp_path / "hostile.ckpt")
    data = SyntheticCabin(root=str(cabin_root), **CABIN)
    for path in (str(tmp_path / "hostile.ckpt"), "http://127.0.0.1:9/hostile.ckpt"):
        for weights_only in (None, False):
            with pytest.raises(CheckpointError, match=r"more than tensors|is an address"):
                make_trainer(tmp_path).test(make_module(), data, ckpt_path=path, weights_only=weights_only)
    assert not (tmp_path / "was-run").exists()


def test_training_resumes_exactly(tmp_path, cabin_root):
    """Two epochs in one go and in two sessions end with the same weights."""

    def fit(epochs: int, **options) -> VideoClassifier:
        L.seed_everything(0, verbose=False)
        module = make_module(optimizer="adamw", learning_rate=1e-3)
        trainer = make_trainer(tmp_path, max_epochs=epochs, limit_val_batches=0)
        trainer.fit(module, SyntheticCabin(root=str(cabin_root), **CABIN), **options)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module

    straight = fit(2)
    fit(1)
    resumed = fit(2, ckpt_path=str(tmp_path / "1.ckpt"))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_batch_of_which_nothing_could_be_read_gives_zero_gradients():
    module = make_module()
    module.training_step(batch_of([]), 0).backward()
    assert all((p.grad == 0).all() for p in module.backbone.parameters())


HALF = {"name": "random", "options": {"kept": 0.5}}


def test_tokens_are_dropped_in_training_and_testing_and_travel_with_the_checkpoint(tmp_path):
    data = SyntheticCabin(root=str(tmp_path), **CABIN)
    module = make_module(class_names=None, tokens=HALF, learning_rate=1e-3)
    trainer = make_trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(module, data)
    path = tmp_path / "trained.ckpt"
    trainer.save_checkpoint(path)
    assert torch.load(path, weights_only=True)["hyper_parameters"]["tokens"] == HALF
    clips = torch.randint(256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    module.eval()
    with torch.no_grad():
        reduced, dense = module(clips), module.backbone(clips)
        torch.testing.assert_close(reduced, module.backbone(clips, reducer=KeepRandom()), rtol=0, atol=0)
        assert not torch.equal(reduced, dense)
        loaded = VideoClassifier.load_from_checkpoint(path, weights_only=True).eval()
        torch.testing.assert_close(loaded(clips), reduced, rtol=0, atol=1e-6)
        other = make_module(class_names=None)  # a run without tokens takes them over from the checkpoint
        other.on_load_checkpoint(torch.load(path, weights_only=True))
        assert other.reducer == KeepRandom()
        told = "runs with random, the model was to run with random_seed3: tokens cannot be reduced twice"
        twice = make_module(class_names=None, tokens={"name": "random", "options": {"seed": 3}})
        with pytest.raises(ValueError, match=told):
            twice.on_load_checkpoint(torch.load(path, weights_only=True))
        same = make_module(class_names=None, tokens={"name": "random", "options": {"kept": 0.5}})  # as it is anyway
        same.on_load_checkpoint(torch.load(path, weights_only=True))


def test_tokens_that_are_asked_for_are_added_to_a_model_with_all(caplog):
    dense = make_module()
    smaller = make_module(removed_layers=[1])
    for module in (dense, smaller):
        other = make_module(tokens=HALF)
        checkpoint = {"hyper_parameters": dict(module.hparams)}
        module.on_save_checkpoint(checkpoint)
        for _ in range(2):  # as a resumed fit does
            other.on_load_checkpoint(dict(checkpoint))
        assert other.adds_tokens
        assert other.reducer == KeepRandom()
        assert other.hparams["removed_layers"] == module.hparams["removed_layers"]
        assert len(other.backbone.layers) == len(module.backbone.layers)
        kept = {"hyper_parameters": dict(other.hparams)}
        other.on_save_checkpoint(kept)
        assert kept["config"].endswith(f"with tokens {json.dumps(HALF, sort_keys=True)}")
    told = [record.message for record in caplog.records if "as asked" in record.message]
    assert told == ["The checkpoint's model runs with all tokens; here it runs with random, as asked."] * 2
    assert not dense.adds_tokens


def test_a_checkpoint_with_tokens_is_refused_by_whoever_builds_without(tmp_path):
    """As a version does that does not know the option: it drops what it does not know of the structure."""
    module = make_module(tokens=HALF)
    checkpoint = {"hyper_parameters": {**module.hparams, "tokens": None}}
    module.on_save_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"was built as .* with tokens .*random.*; this version builds it as"):
        make_module().on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"name": "gone"}, "Unknown token reduction 'gone'"),
        ({"options": {}}, "Expected tokens as"),
        ({"name": "random", "options": {"layer": 7}}, "has layers 0 to 3"),
    ],
)
def test_impossible_tokens_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        make_module(tokens=tokens)
