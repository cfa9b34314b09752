"""Fine-tuning a video transformer as a classifier."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import ConfusionMatrix, MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.finite_losses import NotFiniteError, listed, of_all_processes
from lightning_modules.mean_class_accuracy import MeanClassAccuracy
from lightning_modules.weight_decay import decay_groups, regrouped
from sightline.backbones import Backbone, Reducer
from sightline.backbones.contract.reducer import ReductionPoints
from sightline.backbones.parts.interpreters import interpreters_of
from sightline.backbones.registry import DEFAULT_BACKBONE
from sightline.checkpoints.loading import load_weights
from sightline.checkpoints.structure import STRUCTURE, structure_of
from sightline.checkpoints.trained import (
    build_structure,
    built_as,
    check_and_record,
    check_state_dict,
    plain_state_dict,
)
from sightline.tokens.spec import TokenReduction
from sightline.types import ClipBatch

log = logging.getLogger(__name__)


class VideoClassifier(L.LightningModule):
    """A video transformer with cross-entropy; the defaults are the thesis' (Adam, learning rate 2e-5)."""

    def __init__(
        self,
        num_classes: int = 400,
        class_names: list[str] | None = None,
        backbone: str = DEFAULT_BACKBONE,
        frames: int = 16,
        size: int = 224,
        options: dict[str, Any] | None = None,
        weights: str | None = None,
        optimizer: Literal["adam", "adamw", "sgd"] = "adam",
        learning_rate: float = 2e-5,
        weight_decay: float = 0.0,
        schedule: Literal["constant", "cosine"] = "constant",
        warmup_epochs: float = 0.0,
        label_smoothing: float = 0.0,
        removed_layers: list[int] | None = None,
        removed_heads: list[list[Any]] | None = None,
        tokens: dict[str, Any] | None = None,
        interpreters: dict[str, Any] | None = None,
    ) -> None:
        """Build the model.

        Args:
            num_classes: Number of classes; the CLI takes it from the data.
            class_names: Names of the classes in the order of the labels; the CLI takes them from the data.
            backbone: Name of a registered backbone, e.g. video_swin_s.
            frames: Frames per clip; the CLI takes it from the data.
            size: Height and width of a clip in pixels; the CLI takes it from the data.
            options: Fields of the backbone's configuration to set, e.g. {shifted_windows: false}.
            weights: Weights to start from: a file or folder in any form that docs/checkpoints.md lists, or
                `torchvision` to download torchvision's; random weights if not given.
            optimizer: Adam, AdamW, or SGD with a momentum of .9.
            learning_rate: Largest learning rate.
            weight_decay: Weight decay of matrices and kernels; biases, norms, positions and class tokens have none.
            schedule: Constant, or falling to zero along a half cosine over the run.
            warmup_epochs: Epochs over which the learning rate rises linearly from zero.
            label_smoothing: Share of the target spread evenly over all classes.
            removed_layers: Original indices of layers to leave out.
            removed_heads: Heads to leave out, each as [layer, site, head].
            tokens: Token reduction to train and test with, e.g. {name: random, options: {kept: 0.5}}; all tokens if not
                given.
            interpreters: Interpreters for the model to hold, which the reduction ia_red2 needs, as {groups: 1, heads:
                4, motion: false}; none if not given.
        """
        super().__init__()
        self.save_hyperparameters(*STRUCTURE)
        self.backbone: Backbone
        self.tokens: TokenReduction | None
        self.reducer: Reducer | None
        self.adds_tokens = False  # to the model of a checkpoint, which has all
        self.confusion: Tensor
        self.weights = weights
        self._begun = False
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_epochs = warmup_epochs
        self._build(dict(self.hparams))
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self._not_finite: list[str] = []

    def _build(self, structure: dict[str, Any]) -> None:
        """Build the backbone and the metrics that depend on the number of classes."""
        self.backbone = build_structure(structure)
        self.hparams["interpreters"] = interpreters_of(self.backbone.reducer)  # with what was left to the defaults
        self.tokens = TokenReduction.from_plain(structure["tokens"]) if structure["tokens"] else None
        self.reducer = None if self.tokens is None else self.tokens.build()
        if self.reducer is not None:
            ReductionPoints(self.backbone, self.reducer)  # its checks
        classes = structure["num_classes"]
        metrics: dict[str, Metric | MetricCollection] = {"top1": MulticlassAccuracy(classes, average="micro")}
        if classes > 5:
            metrics["top5"] = MulticlassAccuracy(classes, average="micro", top_k=5)
        metrics["mean_class_acc"] = MeanClassAccuracy(classes)
        collection = MetricCollection(metrics)
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_metrics = collection.clone(prefix="val/")
        self.test_metrics = collection.clone(prefix="test/")
        self.test_confusion = ConfusionMatrix(task="multiclass", num_classes=classes)

    # Weights and checkpoints ----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        self.begin(stage, self._trainer is not None and self.trainer.ckpt_path is not None)

    def begin(self, stage: str, resumes: bool) -> None:
        """Load the weights to start from, once; the command line does so before it makes a run's folder.

        Args:
            stage: What is to be done, e.g. ``fit``.
            resumes: Whether the weights come from a checkpoint of the run; the file that it began from may be gone.

        Raises:
            CheckpointError: If the weights cannot be used.
        """
        if not self._begun:
            self._load_start(stage, resumes)
        self._begun = True

    def _load_start(self, stage: str, resumes: bool) -> None:
        if self.weights is not None and not resumes:
            load_weights(self.backbone, self.weights, self.hparams["backbone"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = built_as(self.backbone, self.hparams["tokens"])
        checkpoint["record"] = self.backbone.record.plain()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over structure and normalisation from the checkpoint, so that a pruned one loads anywhere.

        Only a token reduction that was asked for is added to a model with all tokens.
        """
        stored = structure_of(checkpoint)
        own = {key: self.hparams.get(key) for key in STRUCTURE}
        self._check_classes(stored["class_names"], stored["num_classes"])
        if "state_dict" in checkpoint:
            path = (self._trainer and self.trainer.ckpt_path) or "The checkpoint"
            check_state_dict(stored, plain_state_dict(checkpoint, path), path)
        here, there = (TokenReduction.from_plain(s["tokens"]) if s["tokens"] else None for s in (own, stored))
        if here is not None and there is not None and here != there:
            raise ValueError(
                f"The checkpoint's model runs with {there.label}, the model was to run with {here.label}: tokens "
                "cannot be reduced twice. Leave tokens out of the model's options, or use a checkpoint of all tokens."
            )
        wanted = dict(stored)
        if here is not None and there is None:
            wanted["tokens"] = own["tokens"]
            if not self.adds_tokens:
                log.warning("The checkpoint's model runs with all tokens; here it runs with %s, as asked.", here.label)
        self.adds_tokens = here is not None and there is None
        changed = [key for key in STRUCTURE if (wanted[key] or None) != (own[key] or None)]
        if changed:
            told = ", ".join(f"{key}={wanted[key]}" for key in changed if key != "class_names")
            log.warning("The checkpoint's structure replaces the configured one: %s.", told or "other class names")
            self.hparams.update(wanted)
            self._build(wanted)
        check_and_record(self.backbone, checkpoint, stored)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            for place, state in enumerate(checkpoint.get("optimizer_states", ())):
                checkpoint["optimizer_states"][place] = regrouped(state, self.backbone)

    def _check_classes(self, stored: list[str] | None, count: int) -> None:
        own = self.hparams.get("class_names")
        if own and count != len(own):
            raise ValueError(
                f"The checkpoint tells {count} classes apart, but the data has {len(own)}. Use the data (or its list "
                "of classes) that it was trained on."
            )
        if stored and own and list(stored) != list(own):
            differ = sorted(set(stored) ^ set(own)) or ["the same names in another order"]
            raise ValueError(
                f"The checkpoint was trained on other classes than the data has: {', '.join(differ[:5])}. Labels would "
                "mean something else. Use the data (or its list of classes) that it was trained on."
            )

    # Steps ----------------------------------------------------------------------------------------------------------

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits (B, classes) of clips (B, 3, T, H, W)."""
        return self.backbone(clips, reducer=self.reducer)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        if not len(batch["label"]):
            # Nothing could be read and nothing put in its place. Other ranks wait for gradients, so give them zeros.
            loss = torch.stack([p.sum() for p in self.backbone.parameters()]).sum() * 0
            self._stop_unless_finite(loss, batch)
            return loss
        logits = self(batch["clip"])
        loss = self.training_loss(logits, batch)
        self._stop_unless_finite(loss, batch)
        self.train_loss.update(loss.detach(), len(logits))
        self.train_top1.update(logits.detach(), batch["label"])
        metrics = {"train/loss": self.train_loss, "train/top1": self.train_top1}
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(logits))  # type: ignore[arg-type]
        return loss

    def training_loss(self, logits: Tensor, batch: ClipBatch) -> Tensor:
        """Return the loss of a batch's logits (B, classes)."""
        return self.loss(logits, batch["label"])

    def _stop_unless_finite(self, loss: Tensor, batch: ClipBatch) -> None:
        """Raise NotFiniteError in all processes where any has a loss that is not finite, before it moves a weight."""
        finite = bool(loss.isfinite())
        if finite if self._trainer is None else self.trainer.strategy.reduce_boolean_decision(finite):
            return
        clips = of_all_processes([] if finite else batch["sample_id"])
        place = "" if self._trainer is None else f" in epoch {self.current_epoch + 1}, step {self.global_step}"
        raise NotFiniteError(
            f"The training loss is not finite{place}, on the clips {listed(clips)}. The step was not taken; "
            "checkpoints/last.ckpt, where there is one, has the weights of the last whole epoch. Look at these "
            "clips, lower --model.learning_rate, or train with --trainer.precision 32-true."
        )

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics, self.val_loss)

    def test_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Any]:
        """Measure, and return what `predict_step` returns."""
        logits = self._evaluate(batch, self.test_metrics, self.test_loss)
        if len(logits):
            self.test_confusion.update(logits, batch["label"])
        return {"sample_id": batch["sample_id"], "probabilities": logits.float().softmax(dim=-1)}

    def predict_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Any]:
        """Return the probabilities (B, classes), averaged over the views, and the names of the samples."""
        return {"sample_id": batch["sample_id"], "probabilities": self._logits(batch).float().softmax(dim=-1)}

    def _evaluate(self, batch: ClipBatch, metrics: MetricCollection, mean_loss: MeanMetric) -> Tensor:
        # Metrics are updated here and logged at the end of the epoch: ranks may have different numbers of batches.
        logits = self._logits(batch)
        if len(logits):
            metrics.update(logits, batch["label"])
            losses = nn.functional.cross_entropy(logits.float(), batch["label"], reduction="none")
            mean_loss.update(losses)
            self._not_finite += [batch["sample_id"][i] for i in (~losses.isfinite()).nonzero().flatten().tolist()]
        return logits

    def _logits(self, batch: ClipBatch) -> Tensor:
        """Return the logits (B, classes); of samples with several views, those of the views' mean probabilities."""
        clips, samples = batch["clip"], len(batch["label"])
        if not samples:  # every clip of the batch was unreadable
            return clips.new_empty(0, self.hparams["num_classes"], dtype=torch.float32)
        views = len(clips) // samples
        if views == 1:
            return self(clips)
        # View by view, so that testing with many takes no more memory. log(p) are logits of p.
        logs = torch.stack([self(clips[view::views]).float().log_softmax(dim=-1) for view in range(views)])
        return logs.logsumexp(dim=0) - math.log(views)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch(self.val_metrics, self.val_loss, "val/loss")

    def on_test_epoch_end(self) -> None:
        self._log_epoch(self.test_metrics, self.test_loss, "test/loss")
        self.confusion = self.test_confusion.compute()
        clips, right = self.confusion.sum(dim=1), self.confusion.diag()
        names = self.backbone.record.class_names or tuple(map(str, range(len(clips))))
        # A class without test clips has no accuracy.
        self.log_dict({f"test/class/{names[i]}": right[i] / clips[i] for i in clips.nonzero().flatten().tolist()})
        self.test_confusion.reset()

    def _log_epoch(self, metrics: MetricCollection, mean_loss: MeanMetric, name: str) -> None:
        clips, self._not_finite = of_all_processes(self._not_finite), []
        if clips:
            raise NotFiniteError(
                f"{name} is not finite: the model gives no probabilities for {len(clips)} clips, {listed(clips)}. Run "
                "with --trainer.precision 32-true; if it stays so, take weights from before the training failed."
            )
        self.log_dict(metrics.compute(), prog_bar=True)
        self.log(name, mean_loss.compute(), prog_bar=True)
        metrics.reset()
        mean_loss.reset()

    # Optimisation ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = decay_groups(self.backbone, self.weight_decay)
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "sgd": partial(torch.optim.SGD, momentum=0.9),
        }
        optimizer = kinds[self.optimizer](groups, lr=self.learning_rate)
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        scheduler = LambdaLR(optimizer, lambda step: self.rate_at(step, total, per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def rate_at(self, step: int, total: int, per_epoch: float) -> float:
        """Return the learning rate at a step, relative to the largest.

        Args:
            step: Which, from 0.
            total: How many there are.
            per_epoch: How many an epoch has.
        """
        return rate_factor(step, total, round(self.warmup_epochs * per_epoch), self.schedule)


def rate_factor(step: int, total: int, warmup: int, schedule: str) -> float:
    """Return the learning rate at a step, relative to the largest: linear warm-up, then constant or half a cosine.

    A function of the step, so that a resumed run follows the length that it has now: a scheduler that keeps its length
    in the checkpoint would let the rate rise again when a run is continued for more epochs.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(total - warmup, 1)
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
