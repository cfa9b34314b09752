"""Training of IA-RED²: who learns when, rewards of real runs, resuming, collapse."""

import lightning as L
import pytest
import torch

from datamodules import SyntheticCabin
from lightning_modules import PolicyClassifier, VideoClassifier
from lightning_modules.policy_classifier import Phase, PolicyCollapseError, check_collapse
from sightline.backbones import Selection
from sightline.tokens.ia_red2 import interpreters_in
from sightline.tokens.policy import noise_of
from tests.conftest import CABIN, randomise
from tests.lightning_modules.test_video_classifier import make_trainer

TINY = {"width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
STRUCTURE = {"num_classes": 2, "backbone": "vit_demo", "frames": 4, "size": 32, "options": TINY}
TWO_GROUPS = {"groups": 2, "heads": 2, "motion": False}


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of a run of all tokens."""
    module = VideoClassifier(**STRUCTURE)
    randomise(module.backbone)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    return str(tmp_path / "trained.ckpt")


def make_module(weights=None, **changes) -> PolicyClassifier:
    return PolicyClassifier(**{**STRUCTURE, "weights": weights, "interpreters": TWO_GROUPS, **changes})


def batch_of(count: int) -> dict:
    clips = torch.randint(256, (count, 3, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = [str(i) for i in range(count)]
    told = {"sample_id": names, "group": names, "unreadable": [], "seed": list(range(count))}
    return {"clip": clips, "label": torch.tensor([0, 1] * count)[:count], **told}


def test_phases_follow_one_another_group_by_group():
    module = make_module(policy_epochs=2, tuning_epochs=1)
    assert module.epochs == 6
    found = [(p.group, p.tunes, p.epoch) for p in map(module.phase, range(7))]
    one = [(0, False, 0), (0, False, 1), (0, True, 0)]
    assert found == [*one, *((1, *rest) for _, *rest in one), (1, True, 0)]


def test_each_phase_has_its_own_rate():
    module = make_module(
        policy_epochs=2, tuning_epochs=1, policy_learning_rate=0.1, learning_rate=0.01, schedule="cosine"
    )
    found = [module.rate_at(step, 24, 4.0) * 0.01 for step in range(24)]
    assert found[0] == pytest.approx(0.1)
    assert found[4] == pytest.approx(0.05)  # half of the interpreter's 8 steps
    assert found[8] == pytest.approx(0.01)
    assert found[10] == pytest.approx(0.005)
    assert found[12:] == found[:12]


def fit(module, tmp_path, cabin_root, stop_after=None, **options):
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch + 1 == stop_after
            seen.append({name: value.clone() for name, value in pl_module.backbone.state_dict().items()})

    seen = []
    trainer = make_trainer(
        tmp_path, max_epochs=module.epochs, limit_val_batches=1, num_sanity_val_steps=0, callbacks=[Stop()],
        gradient_clip_val=1.0, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, SyntheticCabin(root=str(cabin_root), **CABIN), **options)
    return trainer, seen


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_who_learns_when(weights, tmp_path, cabin_root):
    module = make_module(weights, policy_epochs=1, tuning_epochs=1, learning_rate=1e-3, weight_decay=0.1)
    trainer, seen = fit(module, tmp_path, cabin_root)
    before = torch.load(weights, weights_only=True)["state_dict"]
    assert {k for k in changed({k: v for k, v in seen[0].items() if not k.startswith("reducer.")},
                               {k.removeprefix("backbone."): v for k, v in before.items()})} == set()  # fmt: skip
    for number, prefixes in enumerate((("blocks", "fc_norm", "head"), ("reducer.1",), ("blocks.1", "fc_norm", "head"))):
        moved = changed(seen[number], seen[number + 1])
        assert {next((p for p in prefixes if name.startswith(p)), name) for name in moved} == set(prefixes)
    values = trainer.callback_metrics
    for name in ("train/top1", "val/kept", "val/reward", "val/top1"):
        assert 0 <= float(values[name]) <= 1
    share = 0.5
    assert float(values["val/kept"]) == share
    top1 = float(values["val/top1"])
    assert float(values["val/reward"]) == pytest.approx(top1 * (1 - share**2) - 2 * (1 - top1))


def test_a_step_is_reinforce_over_real_runs(weights):
    """Every draw, the greedy one and the loss again, by reducers of their own and one clip at a time."""
    module = make_module(weights, draws=3, tau=1.5, tokens={"name": "ia_red2", "options": {"kept": 0.25}})
    module.begin("fit", False)
    randomise(module.backbone.reducer, 3)
    module.backbone.eval()
    batch = batch_of(4)
    logged = {}
    module.log_dict = lambda metrics, **_: logged.update(metrics)
    module._trainer = None
    found = module._policy_step(batch, 1)

    state = module.entering(batch["clip"], 1)
    assert state.patches == 16  # the first group has dropped half of 32
    scores = interpreters_in(module.backbone)[1](state.tokens).detach()
    expected = 0.0
    noise = noise_of(batch["seed"], 3, 16, 1)
    for clip in range(4):
        one = module.entering(batch["clip"][clip : clip + 1], 1)
        results = []
        for draw in (*(noise[:, clip] < scores[clip]), scores[clip] > 0.5):
            stays = draw if draw.any() else scores[clip] == scores[clip].max()
            kept = Selection(one.cell_numbers()[:, stays])
            logits = module.backbone.classify(module.backbone.run(one.select(kept.cells), 1))
            right = int(logits.argmax()) == int(batch["label"][clip])
            results.append(1 - (int(stays.sum()) / 32) ** 2 if right else -1.5)
        for number, draw in enumerate(noise[:, clip] < scores[clip]):
            others = [r for place, r in enumerate(results[:3]) if place != number]
            log_p = torch.where(draw, scores[clip].log(), (1 - scores[clip]).log()).sum()
            expected -= (results[number] - sum(others) / 2) * float(log_p) / 12
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(logged["train/kept"].compute()) == pytest.approx(float(scores.mean()), rel=1e-5)
    found.backward()
    named = dict(module.backbone.named_parameters())
    assert {name.split(".")[1] for name, p in named.items() if p.grad is not None} == {"1"}


def test_training_resumes_exactly(weights, tmp_path, cabin_root):
    """Four epochs in one go, and stopped after the second, in the middle of the second group's start."""

    def begin():
        L.seed_everything(0, verbose=False)
        return make_module(weights, policy_epochs=1, tuning_epochs=1, learning_rate=1e-3)

    _, straight = fit(begin(), tmp_path, cabin_root)
    trainer, _ = fit(begin(), tmp_path, cabin_root, stop_after=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = begin()
    resumed.begin("fit", True)
    fit(resumed, tmp_path, cabin_root, ckpt_path=str(tmp_path / "half.ckpt"))
    assert not changed(straight[-1], resumed.backbone.state_dict())


def test_checkpoints_are_read_by_the_plain_classifier(weights, tmp_path):
    module = make_module(weights)
    module.begin("fit", False)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "learned.ckpt")
    tokens = torch.load(tmp_path / "learned.ckpt", weights_only=True)
    assert any(name.startswith("backbone.reducer.") for name in tokens["state_dict"])
    plain = VideoClassifier(**STRUCTURE)
    plain.on_load_checkpoint(tokens)
    plain.load_state_dict(tokens["state_dict"], strict=False)
    clips = batch_of(2)["clip"]
    with torch.no_grad():
        assert torch.equal(plain.eval()(clips), module.eval()(clips))
    assert plain.hparams["interpreters"] == TWO_GROUPS


def test_blocks_get_used_to_any_reduction(weights, tmp_path, cabin_root):
    tokens = {"name": "temporal_difference"}
    module = make_module(weights, policy_epochs=0, tuning_epochs=1, tokens=tokens, interpreters=None)
    assert module.phase(0) == Phase(0, True, 0)
    _, seen = fit(module, tmp_path, cabin_root)
    assert not any(name.startswith("reducer.") for name in seen[0])


@pytest.mark.parametrize(("kept", "word"), [(0.995, "Lower"), (0.01, "Raise")])
def test_a_collapse_is_said_with_what_to_change(kept, word):
    with pytest.raises(PolicyCollapseError, match=f"group 2 has collapsed: it keeps .* {word} --model.tau \\(5\\)"):
        check_collapse(kept, 1, 5.0, 0.003)
    check_collapse(0.5, 1, 5.0, 0.003)


def test_a_fit_stops_at_a_collapse(weights, tmp_path, cabin_root):
    module = make_module(weights, policy_epochs=2, tuning_epochs=0)
    module.begin("fit", False)
    with torch.no_grad():
        interpreters_in(module.backbone)[0].bias.fill_(9.0)
    with pytest.raises(PolicyCollapseError, match=r"keeps 100\.0%"):
        fit(module, tmp_path, cabin_root)


def test_what_cannot_be_is_said(tmp_path):
    for changes, message in (
        ({"policy_epochs": 0, "tuning_epochs": 0}, "not both 0"),
        ({"draws": 1}, "at least 2 draws"),
        ({"tau": -1.0}, "tau of 0 or more"),
        ({"tokens": {"name": "random"}}, "Only ia_red2 has something to learn"),
    ):
        with pytest.raises(ValueError, match=message):
            make_module(**changes)
    make_module(draws=1, baseline="self_critical")
    with pytest.raises(ValueError, match=r"--model.weights <run>/checkpoints/best.ckpt"):
        make_module().begin("fit", False)
    module = make_module()
    module.trainer = make_trainer(tmp_path, max_epochs=3)
    module._begun = True
    with pytest.raises(ValueError, match="take 20 epochs"):
        module.setup("fit")
