"""After a recovery: the recovered model as an export, and what it gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pandas as pd
from rich.console import Console
from rich.table import Table

from callbacks.analysis import COUNTED_CLIPS, Analysis, Context, check_unseen, predict_clips
from callbacks.logging_results import log_results
from datamodules.clip_data_module import ClipDataModule
from lightning_modules.recovering_classifier import RecoveringClassifier, load_teacher
from sightline.checkpoints.trained import backbone_options
from sightline.export.counting import count_cost
from sightline.export.evaluation import accuracy
from sightline.export.reading import ExportedModel, exported_plan, load_exported, read_description
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan
from sightline.run.csv_table import write_table
from sightline.statistics.few_subjects import caution


class RecoveredModel(Analysis):
    """Exports the recovered model and tests it beside the full and the merely pruned one (tables/recovery.csv)."""

    command: ClassVar[str] = "prune"
    takes_tokens: ClassVar[bool] = True

    def __init__(self, batch_size: int | None = None) -> None:
        """Set up the step.

        Args:
            batch_size: Clips per batch in tests; the data module's if not given.
        """
        self.batch_size = batch_size

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and isinstance(pl_module, RecoveringClassifier) and isinstance(data, ClipDataModule):
            for model in (pl_module.student, pl_module.teacher):
                check_unseen(Path(model).parents[1], data)  # <run>/pruned/<plan> and <run>/checkpoints/<file>

    def analyse(self, context: Context) -> None:
        module = context.module
        if not isinstance(module, RecoveringClassifier):
            raise ValueError(
                f"RecoveredModel needs lightning_modules.RecoveringClassifier as model, got {type(module).__name__}."
            )
        plan = exported_plan(read_description(module.student))
        folder = context.run.pruned(plan.plan_id)
        context.ranks.together(lambda: self._export(context, module, plan, folder), only_first=True)
        device = next(context.backbone.parameters()).device
        models = {"full": ExportedModel(load_teacher(module.teacher), None), "pruned": load_exported(module.student)}
        models["recovered"] = load_exported(folder)
        rows = []
        for name, model in models.items():
            model.backbone.to(device).eval()
            row = self._test(context, name, model)
            rows += [row] if row is not None else []
        context.ranks.together(lambda: self._report(context, pd.DataFrame(rows), folder), only_first=True)

    def _export(self, context: Context, module: RecoveringClassifier, plan: PruningPlan, folder: Path) -> None:
        structure = dict(module.hparams)
        export_model(
            context.backbone,
            folder,
            name=structure["backbone"],
            options=backbone_options(structure),
            plan=plan,
            provenance={
                "checkpoint": context.checkpoint,
                "student": module.student,
                "teacher": module.teacher,
                "temperature": module.temperature,
                "teacher_weight": module.teacher_weight,
            },
            sampling=context.data.sampling(),
            hyper_parameters=structure,
        )

    def _test(self, context: Context, name: str, model: ExportedModel) -> dict[str, Any] | None:
        predictions = predict_clips(context, model.backbone, "test", name, self.batch_size, model.reducer)
        if predictions is None:
            return None
        clips = None if model.reducer is None else context.some_clips("test", COUNTED_CLIPS)
        found, cost = accuracy(predictions), count_cost(model.backbone, model.reducer, clips)
        interval, top1 = found.interval, 100 * found.correct / found.total
        told = {"model": name, "top1": top1, "top1_low": interval.low, "top1_high": interval.high}
        told |= {"mean_class_acc": 100 * found.mean_class, "params": cost.params, "macs": cost.macs}
        return {**told, "subjects": interval.subjects, "interval_over": interval.over}

    def _report(self, context: Context, table: pd.DataFrame, folder: Path) -> None:
        path = context.run.table("recovery")
        write_table(table, path, float_format="%.6g")
        log_results(context.loggers, {"recovery": table})
        shown = Table("model", "top-1 % (95 %)", "parameters", "multiply-adds", title="Recovery")
        for row in table.to_dict("records"):
            top1 = f"{row['top1']:.1f} ({row['top1_low']:.1f}-{row['top1_high']:.1f})"
            shown.add_row(row["model"], top1, f"{row['params']:,}", f"{row['macs']:,}")
        shown.caption = caution(int(table["subjects"].fillna(0).max()), len(context.data.clips("test"))) or None
        Console().print(shown)
        print(f"Recovered model: {folder}\nTable:           {path}")
