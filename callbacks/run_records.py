"""What every run writes down by itself: its split, its test results, its predictions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from rich.console import Console

from callbacks.analysis import check_split, settle_kernels_of
from callbacks.logging_results import log_results
from datamodules.clip_data_module import ClipDataModule
from lightning_modules.finite_losses import of_all_processes
from lightning_modules.video_classifier import VideoClassifier
from sightline.report.figures.confusion import confusion_figure
from sightline.report.figures.saving import save_figure
from sightline.report.tables.split import clips_per_class, render_split_table
from sightline.run.csv_table import write_table
from sightline.run.paths import RunFolder
from sightline.statistics.few_subjects import caution
from sightline.statistics.top1_interval import Top1Interval, top1_interval


def suffix_of_test(trainer: L.Trainer, module: L.LightningModule) -> str:
    """What is appended to the names of a test's files: which plan is tested, and with which tokens if not its own."""
    # A pruned model's checkpoint lies in a folder named by its plan.
    checkpoint = Path(trainer.ckpt_path or "")
    plan = f"-{checkpoint.parent.name}" if checkpoint.name == "model.ckpt" else ""
    if isinstance(module, VideoClassifier) and module.adds_tokens and module.tokens is not None:
        return f"{plan}-{module.tokens.label}"
    return plan


class RunRecords(L.Callback):
    """Writes splits.csv, tables/{split,test,confusion,predict}.csv and figures/confusion.*; prints a line per epoch.

    Clips that cannot be read are listed in tables/unreadable.csv (of fit) or tables/unreadable-<command>.csv.
    """

    def __init__(self) -> None:
        self._predictions: list[pd.DataFrame] = []
        self._tested: list[tuple[bool, str]] = []
        self._interval: Top1Interval | None = None
        self._epoch_began = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        settle_kernels_of(trainer)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ClipDataModule):
            # Lightning lets every process pass setup before any of them reads a clip.
            data.record_bad_clips(RunFolder(Path(trainer.default_root_dir)).unreadable(stage), trainer.global_rank)
        if stage in ("validate", "test") and isinstance(data, ClipDataModule):
            check_split(Path(trainer.default_root_dir), data)
        if (
            stage == "fit"
            and trainer.is_global_zero
            and isinstance(data, ClipDataModule)
            and not getattr(trainer, "fast_dev_run", False)
        ):
            run = RunFolder(Path(trainer.default_root_dir))
            table = data.split_table()
            counts = clips_per_class(table, data.class_names)
            write_table(table, run.splits)
            write_table(counts, run.table("split"))
            log_results(trainer.loggers, {"split": counts})
            Console().print(render_split_table(table, data.class_names))
            print(f"Splits: every clip in {run.splits}, counts in {run.table('split')}")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_began = time.monotonic()
        if trainer.is_global_zero and isinstance(pl_module, VideoClassifier):
            backbone = pl_module.backbone
            parameters = sum(p.numel() for p in backbone.parameters())
            print(
                f"Model: {pl_module.hparams['backbone']} for clips of {backbone.input_spec}, "
                f"{parameters / 1e6:.2f} M parameters, {len(backbone.layers)} layers, "
                f"{len(backbone.units('heads'))} heads; {backbone.record.source}"
            )

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            _log_epoch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _log_epoch(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        wanted = {
            "train/loss": "loss {:.3f}",
            "train/top1": "train top-1 {:.1%}",
            "val/top1": "validation top-1 {:.1%}",
        }
        found = {name: trainer.callback_metrics[name] for name in wanted if name in trainer.callback_metrics}
        seconds, self._epoch_began = time.monotonic() - self._epoch_began, time.monotonic()
        told = "  ".join(wanted[name].format(float(value)) for name, value in found.items())
        print(f"Epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}  {told}  ({seconds:.0f} s)", flush=True)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tested, self._interval = [], None

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if isinstance(pl_module, VideoClassifier):
            right = outputs["probabilities"].argmax(dim=1) == batch["label"]
            self._tested += zip(right.tolist(), batch["group"], strict=True)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tested = of_all_processes(self._tested)
        if not self._tested:
            return
        right, subjects = zip(*self._tested, strict=True)
        self._interval = found = top1_interval(right, subjects)
        told = {"top1_low": found.low / 100, "top1_high": found.high / 100}
        told |= {} if found.subjects is None else {"subjects": float(found.subjects)}
        told["interval_over_subjects"] = float(found.over == "subjects")
        pl_module.log_dict({f"test/{name}": value for name, value in told.items()}, sync_dist=True)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        quick = getattr(trainer, "fast_dev_run", False)
        if quick or not trainer.is_global_zero or not isinstance(pl_module, VideoClassifier):
            return
        run = RunFolder(Path(trainer.default_root_dir))
        suffix = suffix_of_test(trainer, pl_module)
        results = pd.DataFrame(
            [(name, float(value)) for name, value in trainer.callback_metrics.items()], columns=["metric", "value"]
        )
        write_table(results, run.table(f"test{suffix}"))
        names = pl_module.backbone.record.class_names or tuple(map(str, range(len(pl_module.confusion))))
        counts = pl_module.confusion.cpu().numpy()
        rows = pd.DataFrame(counts, index=pd.Index(names, name="true"), columns=list(names))
        write_table(rows, run.table(f"confusion{suffix}"), index=True)
        figure = confusion_figure(counts, list(names))
        save_figure(figure, run.figures, f"confusion{suffix}")
        log_results(trainer.loggers, {f"confusion{suffix}": figure, f"test{suffix}": results})
        print(f"Results: {run.table(f'test{suffix}')}")
        if self._interval is not None:
            ends = f"{self._interval.low:.1f}-{self._interval.high:.1f} % (95 %, over {self._interval.over})"
            warning = caution(self._interval.subjects or 0, len(self._tested))
            print(f"Top-1:   {100 * trainer.callback_metrics['test/top1']:.1f} %, {ends}{warning and f'; {warning}'}")

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if not isinstance(pl_module, VideoClassifier) or not outputs["sample_id"]:
            return
        names = pl_module.backbone.record.class_names
        p = pd.DataFrame(outputs["probabilities"].cpu().numpy())
        best = p.to_numpy().argmax(axis=1)
        frame = pd.DataFrame({"sample_id": outputs["sample_id"], "predicted": [names[i] if names else i for i in best]})
        self._predictions.append(frame.assign(probability=p.max(axis=1)))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._predictions:
            return
        suffix = f".rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = RunFolder(Path(trainer.default_root_dir)).table(f"predict{suffix}")
        write_table(pd.concat(self._predictions), path)
        print(f"Predictions: {path}")
        self._predictions = []


def _log_epoch(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Tell all loggers the epoch's number; by itself Lightning would count from 0, unlike every message and table."""
    module.log("epoch", float(trainer.current_epoch + 1), sync_dist=True)
