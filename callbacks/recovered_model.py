"""After a recovery: the recovered model as an export, and what it gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from rich.console import Console
from rich.table import Table

from callbacks.analysis import Analysis, Context, predict_clips
from callbacks.logging_results import log_to_wandb
from lightning_modules.recovering_classifier import RecoveringClassifier, load_teacher
from sightline.backbones import Backbone
from sightline.checkpoints.trained import backbone_options
from sightline.export.counting import count_cost
from sightline.export.evaluation import accuracy
from sightline.export.reading import load_exported, read_description
from sightline.export.writing import export_model
from sightline.pruning.plan import PruningPlan
from sightline.run.atomic import replacing
from sightline.statistics.binomial import accuracy_interval
from sightline.types import Unit


class RecoveredModel(Analysis):
    """Exports the recovered model and tests it beside the full and the merely pruned one (tables/recovery.csv)."""

    command: ClassVar[str] = "prune"

    def __init__(self, batch_size: int | None = None) -> None:
        """Set up the step.

        Args:
            batch_size: Clips per batch in tests; the data module's if not given.
        """
        self.batch_size = batch_size

    def analyse(self, context: Context) -> None:
        module = context.module
        if not isinstance(module, RecoveringClassifier):
            raise ValueError(
                f"RecoveredModel needs lightning_modules.RecoveringClassifier as model, got {type(module).__name__}."
            )
        description = read_description(module.student)
        folder = context.run.pruned(description["plan"]["plan_id"])
        context.ranks.together(lambda: self._export(context, module, description, folder), only_first=True)
        device = next(context.backbone.parameters()).device
        models = {"full": load_teacher(module.teacher), "pruned": load_exported(module.student)}
        models["recovered"] = load_exported(folder)
        rows = []
        for name, model in models.items():
            row = self._test(context, name, model.to(device).eval())
            rows += [row] if row is not None else []
        context.ranks.together(lambda: self._report(context, pd.DataFrame(rows), folder), only_first=True)

    def _export(
        self, context: Context, module: RecoveringClassifier, description: dict[str, Any], folder: Path
    ) -> None:
        structure, told = dict(module.hparams), description["plan"]
        heads = tuple(Unit(layer, site, head) for layer, site, head in description["removed_heads"])
        cut = {key: told[key] for key in ("method", "score", "mode", "k", "seed")}
        export_model(
            context.backbone,
            folder,
            name=structure["backbone"],
            options=backbone_options(structure),
            plan=PruningPlan(**cut, removed_layers=tuple(description["removed_layers"]), removed_heads=heads),
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

    def _test(self, context: Context, name: str, model: Backbone) -> dict[str, Any] | None:
        predictions = predict_clips(context, model, "test", name, self.batch_size)
        if predictions is None:
            return None
        found, cost = accuracy(predictions), count_cost(model)
        low, high = accuracy_interval(found.correct, found.total)
        top1 = 100 * found.correct / found.total
        told = {"model": name, "top1": top1, "top1_low": low, "top1_high": high}
        return {**told, "mean_class_acc": 100 * found.mean_class, "params": cost.params, "macs": cost.macs}

    def _report(self, context: Context, table: pd.DataFrame, folder: Path) -> None:
        path = context.run.table("recovery")
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
        log_to_wandb(context.loggers, {"recovery": table})
        shown = Table("model", "top-1 % (95 %)", "parameters", "multiply-adds", title="Recovery")
        for row in table.to_dict("records"):
            top1 = f"{row['top1']:.1f} ({row['top1_low']:.1f}-{row['top1_high']:.1f})"
            shown.add_row(row["model"], top1, f"{row['params']:,}", f"{row['macs']:,}")
        Console().print(shown)
        print(f"Recovered model: {folder}\nTable:           {path}")
