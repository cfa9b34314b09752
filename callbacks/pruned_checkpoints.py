"""After the ablation: cut layers at the requested depths, export what is left, test it, and enter it in one table."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import lightning as L
import pandas as pd
from rich.console import Console
from tqdm.auto import tqdm

from callbacks.analysis import Analysis, Context, device_name
from callbacks.logging_results import log_to_wandb
from lightning_modules.video_classifier import VideoClassifier, backbone_options
from sightline.backbones import Backbone
from sightline.backbones.fingerprint import weights_sha256
from sightline.pruning.counting import Cost, count_cost, percent_change
from sightline.pruning.depth import relevance_ranking
from sightline.pruning.export import export_model
from sightline.pruning.exported import load_exported, read_description
from sightline.pruning.latency import compare_latency
from sightline.pruning.plan import PruningPlan, one_shot_plans, unpruned_plan
from sightline.pruning.programs import check_programs
from sightline.pruning.testing import accuracy, predict_split
from sightline.relevance.cut_gap import cut_gaps
from sightline.relevance.ranking import check_race, layer_means, layer_order, rank_units
from sightline.relevance.table import read_manifest, read_scores
from sightline.report.files import save_figure
from sightline.report.pruning_figure import accuracy_against_cost, accuracy_against_depth
from sightline.report.pruning_table import (
    PruningRow,
    accuracy_interval,
    pruning_rows,
    pruning_table_markdown,
    read_pruning_table,
    render_pruning_table,
    write_pruning_table,
)

log = logging.getLogger(__name__)


class PrunedCheckpoints(Analysis):
    """Exports pruned models (pruned/<plan_id>/), reloads and tests each: tables/pruning.csv."""

    command: ClassVar[str] = "prune"

    def __init__(
        self,
        depths: list[int] | None = None,
        modes: list[Literal["lowest", "highest"]] | None = None,
        score: Literal["r", "jsd", "dprob"] = "r",
        batch_size: int | None = None,
        latency_batch: int = 8,
        latency_repeats: int = 20,
        programs: list[Literal["torch_export", "onnx"]] | None = None,
        export_full: bool = False,
    ) -> None:
        """Set up the pruning.

        Args:
            depths: How many layers to remove, one model each; 1, 2 and 3 if not given.
            modes: Whether to remove the least relevant layers, the most relevant (the control), or both (the default).
            score: The score whose mean ranks the layers.
            batch_size: Clips per batch in tests; the data module's if not given.
            latency_batch: Clips per forward pass when throughput is measured (latency is measured at 1).
            latency_repeats: Timed forward passes of every model; 0 measures no time.
            programs: Programs that go into every exported folder and run without Sightline: torch_export (model.pt2),
                onnx (model.onnx). None by default; both take up to some minutes per model.
            export_full: Also export the unpruned model, which with its ranking serves any depth (predict --depth).
        """
        self.depths = depths or [1, 2, 3]
        self.modes = modes or ["lowest", "highest"]
        self.score = score
        self.batch_size = batch_size
        self.latency_batch = latency_batch
        self.latency_repeats = latency_repeats
        self.programs = programs or []
        self.export_full = export_full
        check_programs(self.programs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # What cannot be cut shall be said before the training, not after it.
        if stage == "fit" and isinstance(pl_module, VideoClassifier):
            layers = pl_module.backbone.layers
            zeros = pd.Series(0.0, index=[info.index for info in layers])
            one_shot_plans(zeros, layers, self.depths, self.modes, self.score)

    def analyse(self, context: Context) -> None:
        plans = context.ranks.together(lambda: self._plan(context))
        assert plans is not None
        for plan in [*([unpruned_plan(self.score)] if self.export_full else []), *plans]:
            # One by one, because others do not wait for ever and programs take minutes.
            context.ranks.together(partial(self._export, context, plan), only_first=True)
        device = next(context.backbone.parameters()).device
        # What is tested is what lies on disk.
        models = {plan: load_exported(self._folder(context, plan)).to(device) for plan in plans}
        models = {unpruned_plan(self.score): context.backbone, **models}
        full = count_cost(context.backbone)
        rows = []
        for plan, model in tqdm(models.items(), "Testing", unit="model", disable=context.ranks.rank != 0):
            row = self._test(context, plan, model, full)
            rows += [row] if row is not None else []
        by_name = {plan.plan_id: model for plan, model in models.items()}
        context.ranks.together(lambda: self._report(context, self._with_speed(by_name, rows)), only_first=True)

    def _plan(self, context: Context) -> list[PruningPlan]:
        if context.module.hparams["removed_layers"]:
            raise ValueError(
                "The checkpoint holds a model from which layers were removed already. Prune the full model: the "
                "depths count from there."
            )
        table = read_scores(context.relevance_folder, "layers")
        manifest = read_manifest(context.relevance_folder)["tables"]["layers"]
        if manifest["data_sha256"] != context.data.data_hash(context.split):
            raise ValueError(
                f"The scores in {context.relevance_folder} were made on other clips than the data has now. "
                "Run train.py ablate with --overwrite true first."
            )
        if manifest["weights_sha256"] != weights_sha256(context.backbone):
            raise ValueError(
                f"The scores in {context.relevance_folder} were made with other weights than {context.checkpoint}. "
                "Run train.py ablate with --overwrite true first, or pass the checkpoint that was scored."
            )
        race = manifest.get("race")
        removable = [info.index for info in context.backbone.layers if info.removable]
        if race is not None:
            check_race(race, self.score, removable, self.depths, self.modes)
        order = layer_order(table, self.score, race)
        plans = one_shot_plans(order, context.backbone.layers, self.depths, self.modes, self.score)
        if context.ranks.rank == 0:
            ranking = rank_units(table, self.score, race)
            ranking = ranking[ranking["layer"].isin(removable)]
            for gap in cut_gaps(ranking, self.depths, self.modes, manifest["noise_floor"]):
                if not gap.clear:
                    log.warning(gap.warning)
        return plans

    def _folder(self, context: Context, plan: PruningPlan) -> Path:
        return context.folder / "pruned" / plan.plan_id

    def _export(self, context: Context, plan: PruningPlan) -> None:
        structure = dict(context.module.hparams)
        manifest = read_manifest(context.relevance_folder)["tables"]["layers"]
        table, race = read_scores(context.relevance_folder, "layers"), manifest.get("race")
        means = layer_means(table, self.score, race)
        export_model(
            context.backbone.without(plan.removed_layers),
            self._folder(context, plan),
            name=structure["backbone"],
            options=backbone_options(structure),
            plan=plan,
            provenance={"checkpoint": context.checkpoint, "relevance": manifest},
            scores={str(layer): float(mean) for layer, mean in means.items()},
            # A race decides some sets and leaves the order within them open.
            ranking=relevance_ranking(means, context.backbone.layers) if race is None else None,
            sampling=context.data.sampling(),
            hyper_parameters={**structure, "removed_layers": list(plan.removed_layers)},
            programs=self.programs,
        )

    def _test(self, context: Context, plan: PruningPlan, model: Backbone, full: Cost) -> PruningRow | None:
        """Test a model on the test split; the row of the table on rank 0, None elsewhere."""
        clips = context.data.clips("test")
        predictions = predict_split(
            model,
            [clip.sample_id for clip in clips],
            lambda places: context.batches("test", places, self.batch_size),
            context.folder / "tables" / "predictions" / f"{plan.plan_id}.csv",
            context.ranks,
        )
        return context.ranks.together(lambda: self._row(context, plan, model, full, predictions), only_first=True)

    def _row(
        self, context: Context, plan: PruningPlan, model: Backbone, full: Cost, predictions: pd.DataFrame | None
    ) -> PruningRow:
        assert predictions is not None
        found = accuracy(predictions)
        low, high = accuracy_interval(found.correct, found.total)
        cost = count_cost(model)
        return PruningRow(
            backbone=context.module.hparams["backbone"],
            plan_id=plan.plan_id,
            method=plan.method,
            score=plan.score,
            mode=plan.mode,
            k=plan.k,
            removed_layers=plan.removed_layers,
            top1=100 * found.correct / found.total,
            top1_low=low,
            top1_high=high,
            mean_class_acc=100 * found.mean_class,
            params=cost.params,
            params_change_pct=percent_change(cost.params, full.params),
            macs=cost.macs,
            macs_change_pct=percent_change(cost.macs, full.macs),
        )

    def _with_speed(self, models: dict[str, Backbone], rows: list[PruningRow]) -> list[PruningRow]:
        """Time all models side by side; machines drift too much for one after the other."""
        if not self.latency_repeats:
            return rows
        single = compare_latency(models, batch=1, repeats=self.latency_repeats)
        many = compare_latency(models, batch=self.latency_batch, repeats=max(self.latency_repeats // 2, 3))
        return [
            replace(
                row,
                latency_ms_b1=single[row.plan_id].median_ms,
                clips_per_s=many[row.plan_id].clips_per_s,
                batch=self.latency_batch,
            )
            for row in rows
        ]

    def _earlier_rows(self, context: Context, path: Path, replaced: set[str]) -> list[PruningRow]:
        """Rows of other plans for the same weights, e.g. by another score."""
        if not path.exists():
            return []
        weights = weights_sha256(context.backbone)
        kept = []
        for row in pruning_rows(read_pruning_table(path)):
            folder = context.folder / "pruned" / row.plan_id
            if row.plan_id in replaced or row.mode == "none" or not folder.exists():
                continue
            if read_description(folder)["provenance"]["relevance"]["weights_sha256"] == weights:
                kept.append(row)
        return kept

    def _report(self, context: Context, rows: list[PruningRow]) -> None:
        path = context.folder / "tables" / "pruning.csv"
        write_pruning_table([*rows, *self._earlier_rows(context, path, {row.plan_id for row in rows})], path)
        frame = read_pruning_table(path)
        path.with_suffix(".md").write_text(pruning_table_markdown(frame) + "\n")
        labels = [clip.label for clip in context.data.clips("test")]
        majority = 100 * max(labels.count(label) for label in set(labels)) / len(labels)
        figures = {
            "accuracy_against_depth": accuracy_against_depth(frame, majority=majority),
            "accuracy_against_cost": accuracy_against_cost(frame, majority=majority),
        }
        drawn = [save_figure(figure, context.folder / "figures", name)[0] for name, figure in figures.items()]
        log_to_wandb(context.loggers, {"pruning": frame, **{f"pruning/{name}": f for name, f in figures.items()}})
        console = Console(width=max(Console().width, 110))
        console.print(render_pruning_table(frame))
        console.print(f"Speed on {device_name(next(context.backbone.parameters()).device)}.", highlight=False)
        for what, where in (
            ("Table", path),
            ("Figures", f"{', '.join(map(str, drawn))} and more in {context.folder / 'figures'}"),
            ("Scores", context.relevance_folder),
            ("Pruned models", context.folder / "pruned"),
        ):
            console.print(f"{what + ':':<14} {where}", highlight=False, soft_wrap=True)
