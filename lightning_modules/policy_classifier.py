"""IA-RED²: interpreters learn by trial which patches a trained model can do without, then its blocks get used to that.

Source: Pan et al., "IA-RED^2: Interpretability-Aware Redundancy Reduction for Vision Transformers", 2021, sections 3.2
and 3.3. The model is cut into groups of layers. Group after group, first its interpreter alone learns by REINFORCE
while later interpreters keep everything, then the interpreter is fixed and the blocks of this and later groups learn by
cross-entropy. Patch embedding, positions and class token stay as they are. No training code was published.

Deviations from the paper:
- Several draws, each with the mean of the others as its baseline, are the default: with the paper's one draw against
  the greedy one (``draws: 1``, ``baseline: self_critical``) trials ended with a greedy policy that no draw had tried.
- The interpreters' own deviations, see `sightline.backbones.parts.interpreters`.
- While an interpreter learns, the model runs in evaluation mode, so that rewards tell of the patches alone.
- Normalisation and classifier behind the last layer learn along with the blocks.
- Blocks get used to the dropping that the model will run with, by share or by threshold.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_modules.video_classifier import VideoClassifier, rate_factor
from sightline.backbones import TokenState
from sightline.tokens.ia_red2 import IARED2, above, group_places, interpreters_in
from sightline.tokens.keeping import keep_where
from sightline.tokens.policy import Baseline, advantages, draws, noise_of, policy_loss, rewards
from sightline.types import ClipBatch

log = logging.getLogger(__name__)

NOTHING, EVERYTHING = 0.02, 0.98
"""Shares of what it gets beyond which an interpreter tells nothing of patches any more."""
APART = 0.1
"""By how much draws may be right more often than what scores above .5, before it is said."""


class PolicyCollapseError(ValueError):
    """An interpreter that keeps everything or nothing; the message says what to change."""


@dataclass(frozen=True)
class Phase:
    """What an epoch is for.

    Attributes:
        group: Index of the group of layers.
        tunes: Whether blocks learn; otherwise the group's interpreter does.
        epoch: Which epoch of the phase it is, from 0.
    """

    group: int
    tunes: bool
    epoch: int


class PolicyClassifier(VideoClassifier):
    """A trained model whose interpreters learn what to drop, and whose blocks then get used to it."""

    def __init__(
        self,
        policy_epochs: int = 8,
        tuning_epochs: int = 2,
        policy_learning_rate: float = 1e-4,
        tau: float = 2.0,
        draws: int = 8,
        baseline: Baseline = "leave_one_out",
        **kwargs: Any,
    ) -> None:
        """Build the model.

        Args:
            policy_epochs: Epochs in which each group's interpreter learns; 0 to tune the blocks alone.
            tuning_epochs: Epochs in which blocks learn after that, for each group; 0 to leave them as they are.
            policy_learning_rate: Largest learning rate of the interpreters; `learning_rate` is that of the blocks.
            tau: How bad a wrong prediction is, where a right one is worth 1 - share^2: more keeps more.
            draws: Draws of every clip.
            baseline: What a draw's reward is compared with: the clip's other draws, or keeping what scores above .5.
            kwargs: What VideoClassifier takes. tokens are {name: ia_red2} if not given; without policy_epochs, any
                reduction, whose dropping blocks then get used to. interpreters are one if not given. weights are those
                of a trained run: <run>/checkpoints/best.ckpt.
        """
        if min(policy_epochs, tuning_epochs) < 0 or not policy_epochs + tuning_epochs:
            raise ValueError(
                f"Expected policy_epochs and tuning_epochs of 0 or more, not both 0, got {policy_epochs} and "
                f"{tuning_epochs}."
            )
        if draws < 1 + (baseline == "leave_one_out"):
            raise ValueError(
                f"Expected at least 2 draws with the baseline leave_one_out and 1 with self_critical, got {draws}."
            )
        if not tau >= 0:
            raise ValueError(f"Expected a tau of 0 or more, got {tau:g}.")
        kwargs["tokens"] = kwargs.get("tokens") or {"name": "ia_red2"}
        if kwargs["tokens"].get("name") == "ia_red2":
            kwargs["interpreters"] = kwargs.get("interpreters") or {}
        elif policy_epochs:
            raise ValueError(
                f"Only ia_red2 has something to learn, but tokens are {kwargs['tokens'].get('name')}. Set "
                "policy_epochs to 0 to tune the blocks alone."
            )
        super().__init__(**kwargs)
        self.policy_epochs, self.tuning_epochs = policy_epochs, tuning_epochs
        self.policy_learning_rate = policy_learning_rate
        self.tau, self.draws, self.baseline = tau, draws, baseline
        names = ("reward", "kept", "sampled_top1", "greedy_top1", "greedy_kept")
        self.policy_means = nn.ModuleDict({name: MeanMetric() for name in names})
        self.val_kept, self.val_reward = MeanMetric(), MeanMetric()
        self._embedding: frozenset[str] = frozenset()
        self._learning: frozenset[str] = frozenset()

    # The course of training -----------------------------------------------------------------------------------------

    @property
    def groups(self) -> int:
        """Into how many groups of layers the model is cut."""
        return len(interpreters_in(self.backbone)) if isinstance(self.reducer, IARED2) else 1

    @property
    def epochs(self) -> int:
        """How many epochs the training takes."""
        return self.groups * (self.policy_epochs + self.tuning_epochs)

    def phase(self, epoch: int) -> Phase:
        """Return what an epoch, counted from 0, is for; those after the last belong to its phase."""
        group, rest = divmod(min(epoch, self.epochs - 1), self.policy_epochs + self.tuning_epochs)
        tunes = rest >= self.policy_epochs
        return Phase(group, tunes, rest - self.policy_epochs if tunes else rest)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        trainer = self.trainer
        if stage == "fit" and not trainer.fast_dev_run and trainer.max_epochs != self.epochs:  # type: ignore[attr-defined]
            raise ValueError(
                f"{self.groups} group(s) of {self.policy_epochs} policy_epochs and {self.tuning_epochs} tuning_epochs "
                f"take {self.epochs} epochs, got trainer.max_epochs {trainer.max_epochs}. Set one to fit the other."
            )
        if stage == "fit":
            self._embedding = embedding_parameters(self)

    def _load_start(self, stage: str, resumes: bool) -> None:
        if stage == "fit" and self.weights is None and not resumes:
            raise ValueError(
                "Interpreters learn what a trained model can do without. Pass its weights: --model.weights "
                "<run>/checkpoints/best.ckpt."
            )
        super()._load_start(stage, resumes)

    def rate_at(self, step: int, total: int, per_epoch: float) -> float:
        steps = max(round(per_epoch), 1)
        phase = self.phase(step // steps)
        epochs = self.tuning_epochs if phase.tunes else self.policy_epochs
        largest = 1.0 if phase.tunes else self.policy_learning_rate / self.learning_rate
        return largest * rate_factor(phase.epoch * steps + step % steps, epochs * steps, 0, self.schedule)

    def on_train_epoch_start(self) -> None:
        phase = self.phase(self.current_epoch)
        self.backbone.train(phase.tunes)
        self._learning = self.learning(phase)

    def learning(self, phase: Phase) -> frozenset[str]:
        """Return the names of the backbone's parameters that learn in a phase."""
        names = {id(parameter): name for name, parameter in self.backbone.named_parameters()}
        if not phase.tunes:
            interpreter = interpreters_in(self.backbone)[phase.group]
            return frozenset(names[id(parameter)] for parameter in interpreter.parameters())
        start = interpreters_in(self.backbone).starts[phase.group] if isinstance(self.reducer, IARED2) else 0
        earlier = [layer for index, layer in self.backbone.layer_modules().items() if index < start]
        fixed = {names[id(parameter)] for layer in earlier for parameter in layer.parameters()} | self._embedding
        return frozenset(name for name in names.values() if name not in fixed and not name.startswith("reducer."))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Without a gradient, an optimiser neither moves a parameter nor its statistics, and decays no weight.
        for name, parameter in self.backbone.named_parameters():
            if name not in self._learning:
                parameter.grad = None

    # Steps ----------------------------------------------------------------------------------------------------------

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        phase = self.phase(self.current_epoch)
        if phase.tunes or not len(batch["label"]):
            loss = super().training_step(batch, batch_idx)
        else:
            loss = self._policy_step(batch, phase.group)
        # Processes wait for a gradient of every parameter, also of those that do not learn now.
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return loss + 0 * torch.stack([p.sum() for p in self.backbone.parameters()]).sum() if distributed else loss

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits (B, classes) of clips (B, 3, T, H, W); while blocks learn, later groups keep everything."""
        reducer = self.reducer
        if self.training and isinstance(reducer, IARED2):
            reducer = reducer.of_first(self.phase(self.current_epoch).group + 1)
        return self.backbone(clips, reducer=reducer)

    def _policy_step(self, batch: ClipBatch, group: int) -> Tensor:
        """Return the policy's loss on a batch: draws of what the group keeps, each run to its prediction."""
        assert isinstance(self.reducer, IARED2)
        with torch.no_grad():
            state = self.entering(batch["clip"], group)
        place = group_places(interpreters_in(self.backbone))[group]
        scores = self.reducer.fitted(self.backbone).scores(place, state)
        there = state.cell_numbers() >= 0
        noise = noise_of(batch["seed"], self.draws, state.patches, group)
        drawn = draws(scores.detach(), noise.to(scores.device))
        tried = [self._try(state, group, mask & there, scores, batch["label"]) for mask in drawn]
        right, share = (torch.stack(parts) for parts in zip(*tried, strict=True))
        greedy_right, greedy_share = self._try(state, group, (scores > 0.5) & there, scores, batch["label"])
        found, greedy = rewards(right, share, self.tau), rewards(greedy_right, greedy_share, self.tau)
        loss = policy_loss(scores, drawn, there, advantages(found, greedy, self.baseline))
        self._stop_unless_finite(loss, batch)
        values = {
            "reward": found,
            "kept": (scores.detach() * there).sum(dim=1) / there.sum(dim=1),
            "sampled_top1": right.float(),
            "greedy_top1": greedy_right.float(),
            "greedy_kept": greedy_share,
        }
        for name, value in values.items():
            self.policy_means[name].update(value)  # type: ignore[operator]
        told: dict[str, Any] = {f"train/{name}": self.policy_means[name] for name in values}
        self.log_dict(told, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(scores))
        return loss

    def entering(self, clips: Tensor, group: int) -> TokenState:
        """Return the state that a group's interpreter sees, after the groups before it have dropped theirs."""
        assert isinstance(self.reducer, IARED2)
        earlier = self.reducer.of_first(group)
        start = interpreters_in(self.backbone).starts[group]
        return self.backbone.run(self.backbone.embed(clips, earlier), 0, start, reducer=earlier)

    @torch.no_grad()
    def _try(
        self, state: TokenState, group: int, stays: Tensor, scores: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the rest of the model with some of the patches; return what is right, (B,), and shares left, (B,)."""
        empty = ~stays.any(dim=1, keepdim=True)
        stays = stays | (empty & above(scores, 1.0, state))  # no clip runs without any patch
        kept = keep_where(state, stays)
        start = interpreters_in(self.backbone).starts[group]
        logits = self.backbone.readout(state.select(kept.cells, kept.exists), start)
        t, h, w = state.grid
        return logits.argmax(dim=1) == labels, stays.sum(dim=1) / (t * h * w)

    def on_train_epoch_end(self) -> None:
        phase = self.phase(self.current_epoch)
        if phase.tunes:
            return
        values = {name: float(metric.compute()) for name, metric in self.policy_means.items()}  # type: ignore[operator]
        check_collapse(values["kept"], phase.group, self.tau, self.policy_learning_rate)
        last = phase.epoch + 1 == self.policy_epochs
        if last and values["sampled_top1"] - values["greedy_top1"] > APART and self.trainer.is_global_zero:
            log.warning(
                "Draws are right in %.0f %% of the clips, what scores above .5 in %.0f %%: the threshold is not to be "
                "relied on. Keep a fixed share (tokens: {name: ia_red2, options: {fixed: share}}), or learn with more "
                "draws.",
                100 * values["sampled_top1"],
                100 * values["greedy_top1"],
            )

    # Validation -----------------------------------------------------------------------------------------------------

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        logits = self._evaluate(batch, self.val_metrics, self.val_loss)
        if not len(logits) or not isinstance(self.reducer, IARED2):
            return
        last = interpreters_in(self.backbone).starts[-1]
        state = self.backbone.run(self.backbone.embed(batch["clip"], self.reducer), 0, last, reducer=self.reducer)
        t, h, w = state.grid
        share = (state.cell_numbers() >= 0).sum(dim=1) / (t * h * w)
        self.val_kept.update(share)
        self.val_reward.update(rewards(logits.argmax(dim=1) == batch["label"], share, self.tau))

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if isinstance(self.reducer, IARED2):
            self.log_dict({"val/kept": self.val_kept.compute(), "val/reward": self.val_reward.compute()}, prog_bar=True)
            self.val_kept.reset()
            self.val_reward.reset()


def embedding_parameters(module: VideoClassifier) -> frozenset[str]:
    """Return the names of the backbone's parameters that turn a clip into tokens, whatever its family calls them."""
    backbone, spec = module.backbone, module.backbone.input_spec
    named = dict(backbone.named_parameters())
    wanted = {name: parameter.requires_grad for name, parameter in named.items()}
    try:
        with torch.enable_grad():
            backbone.requires_grad_(True)
            clip = torch.zeros(1, 3, spec.frames, spec.height, spec.width, device=module.device)
            tokens = backbone.embed(clip).tokens
            found = torch.autograd.grad(tokens.sum(), list(named.values()), allow_unused=True)
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(wanted[name])
    return frozenset(name for name, gradient in zip(named, found, strict=True) if gradient is not None)


def check_collapse(kept: float, group: int, tau: float, rate: float) -> None:
    """Raise PolicyCollapseError where an interpreter keeps all or nothing of what it gets, as a share in [0, 1]."""
    if NOTHING < kept < EVERYTHING:
        return
    word, other = ("Raise", "more") if kept <= NOTHING else ("Lower", "fewer")
    raise PolicyCollapseError(
        f"The policy of group {group + 1} has collapsed: it keeps {kept:.1%} of the patches that it gets, whatever the "
        f"clip. {word} --model.tau ({tau:g}), so that {other} are worth keeping, or lower "
        f"--model.policy_learning_rate ({rate:g}). checkpoints/last.ckpt is of the epoch before."
    )
