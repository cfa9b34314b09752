"""After the ablation: cut layers at the requested depths, export what is left, test it, and enter it in one table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import pandas as pd
import torch
from rich.console import Console
from tqdm.auto import tqdm

from callbacks.analysis import COUNTED_CLIPS, Analysis, Context, predict_clips, timing_name
from callbacks.logging_results import log_results
from lightning_modules.video_classifier import VideoClassifier
from sightline.backbones import Backbone
from sightline.backbones.fingerprint import weights_sha256
from sightline.checkpoints.trained import backbone_options
from sightline.export.counting import Cost, count_cost
from sightline.export.evaluation import accuracy, top1_percent
from sightline.export.latency import compare_latency
from sightline.export.reading import ExportedModel, load_exported
from sightline.export.runtimes import check_programs, check_tokens_of_programs
from sightline.export.writing import export_model
from sightline.planning.depth_search import search_depth, write_trials
from sightline.pruning.choosing import Choice, PlanChooser
from sightline.pruning.plan import PruningPlan, unpruned_plan
from sightline.pruning.request import Method, Mode, PruningRequest, Score
from sightline.pruning.scored_model import ScoredModel
from sightline.pruning.targets import Targets, UnmetTargetsError, unmet
from sightline.report.figures.pruning import accuracy_against_cost, accuracy_against_depth
from sightline.report.figures.pruning_curves import has_depths
from sightline.report.figures.saving import save_figure
from sightline.report.tables.measured_rows import earlier_rows, measured_row, with_speed
from sightline.report.tables.outcomes import accuracy_by, read_outcomes
from sightline.report.tables.pruning import (
    FORMAT,
    RUNTIME,
    UNPRUNED,
    PruningRow,
    in_order,
    pruning_rows,
    read_pruning_table,
    write_pruning_table,
)
from sightline.report.tables.pruning_layout import pruning_table_markdown, render_pruning_table
from sightline.run.atomic import write_text
from sightline.run.csv_table import read_table, write_table
from sightline.run.paths import ONE_FRAME
from sightline.tokens.spec import TokenReduction
from sightline.tokens.tracing import kept_share
from sightline.video.sampling import repeated_frame

# How many models are in memory together while they are timed.
MODELS_AT_ONCE = 8


class PrunedCheckpoints(Analysis):
    """Exports pruned models (pruned/<plan_id>/), reloads and tests each: tables/pruning.csv."""

    command: ClassVar[str] = "prune"

    def __init__(
        self,
        depths: list[int] | None = None,
        modes: list[Mode] | None = None,
        score: Score = "r",
        methods: list[Method] | None = None,
        random_seeds: list[int] | None = None,
        targets: Targets | None = None,
        heads: list[float] | None = None,
        heads_without_layers: list[int] | None = None,
        tokens: list[dict[str, Any]] | None = None,
        tokens_without_layers: list[int] | None = None,
        tokens_without_heads: list[float] | None = None,
        scores: list[Score] | None = None,
        batch_size: int | None = None,
        latency_batch: int = 8,
        latency_repeats: int = 20,
        programs: list[Literal["torch_export", "onnx"]] | None = None,
        export_full: bool = False,
        retime: bool = False,
    ) -> None:
        """Set up the pruning.

        Args:
            depths: How many layers to remove, one model each; 1, 2 and 3 unless only targets, heads or tokens are
                given.
            modes: Whether to remove the least relevant layers, the most relevant (the control), or both (the default).
            score: The score whose mean ranks the layers.
            methods: Ways of choosing layers, side by side: relevance (the default), greedy (relevance scored again
                after every cut, each as long as an ablation of the layers), and the baselines random, block_influence
                (how much a layer turns its tokens), gradient (first-order change of the loss) and last (the layers
                nearest to the classifier). Of a baseline, what is least important by it is removed.
            random_seeds: One series of random plans per seed; 0, 1 and 2 if not given.
            targets: Also remove as many of the least relevant layers as meets these limits (max_drop in points of
                validation top-1, max_gmacs, max_latency_ms on this device); see tables/targets.csv.
            heads: Numbers of heads to remove, or below 1 shares of all heads, one model each, by the heads' own table.
            heads_without_layers: Numbers of layers; each of `heads` is also removed from the models that lack so many.
            tokens: Token reductions to run the unpruned model with, one model each, as {name: random, options: {kept:
                0.5}}. The weights stay as they are.
            tokens_without_layers: Numbers of layers; each of `tokens` also runs with the models that lack so many of
                the least relevant layers.
            tokens_without_heads: Numbers or shares of heads; each of `tokens` also runs with the models that lack so
                many of the least relevant heads.
            scores: Further scores by which relevance ranks, to compare what each keeps; greedy, targets, heads
                and tokens go by `score` alone.
            batch_size: Clips per batch in tests; the data module's if not given.
            latency_batch: Clips per forward pass when throughput is measured (latency is measured at 1).
            latency_repeats: Timed forward passes of every model; 0 measures no time.
            programs: Programs that go into every exported folder and run without Sightline: torch_export (model.pt2),
                onnx (model.onnx). None by default; both take up to some minutes per model. With tokens only where
                every clip keeps equally many.
            export_full: Also export the unpruned model, which with its ranking serves any depth (predict --depth).
            retime: Only time every model of the table again, in one run, e.g. when the machine is quiet; nothing is
                exported or tested.
        """
        only_other = methods is None and (targets is not None or bool(heads) or bool(tokens))
        self.request = PruningRequest(
            depths=depths if depths is not None else [] if only_other else [1, 2, 3],
            modes=modes or ["lowest", "highest"],
            score=score,
            scores=scores or [],
            methods=methods or ["relevance"],
            random_seeds=random_seeds or [0, 1, 2],
            targets=targets,
            heads=heads or [],
            heads_without_layers=heads_without_layers or [],
            tokens=[TokenReduction.from_plain(values) for values in tokens or []],
            tokens_without_layers=tokens_without_layers or [],
            tokens_without_heads=tokens_without_heads or [],
        )
        self.batch_size = batch_size
        self.latency_batch = latency_batch
        self.latency_repeats = latency_repeats
        self.programs = programs or []
        self.export_full = export_full
        self.retime = retime
        check_programs(self.programs)
        for reduction in self.request.tokens:
            check_tokens_of_programs(self.programs, reduction)

    def check(self, module: VideoClassifier) -> None:
        if self.request.ranks_units:
            super().check(module)  # its ranking is of the model with all tokens
        if module.hparams["removed_layers"] or module.hparams["removed_heads"]:
            raise ValueError(
                "The checkpoint holds a model from which layers or heads were removed already. Prune the full model: "
                "the depths count from there."
            )
        self.request.check(module.backbone)

    def analyse(self, context: Context) -> None:
        if self.retime:
            context.ranks.together(lambda: self._report(context, self._timed_again(context)), only_first=True)
            return
        chooser = PlanChooser(self._scored_model(context), self.request)
        choices = chooser.choose()
        missed = None
        if self.request.targets is not None:
            met, missed = self._meet_targets(context, chooser, self.request.targets)
            # A target may be met at a depth that was asked for anyway.
            choices = list({choice.plan.plan_id: choice for choice in [*choices, *met]}.values())
        if missed and not choices:
            raise UnmetTargetsError(missed)
        plans = [unpruned_plan(self.request.score), *(choice.plan for choice in choices)]
        for choice in [*([chooser.full()] if self.export_full else []), *choices]:
            # One by one, because others do not wait for ever and programs take minutes.
            context.ranks.together(partial(self._export, context, choice), only_first=True)
        full = count_cost(context.backbone)
        rows = []
        for plan in tqdm(plans, "Testing", unit="model", disable=context.ranks.rank != 0):
            row = self._test(context, plan, self._model(context, plan.plan_id), full)
            rows += [row] if row is not None else []
        # Whether the model needs motion at all, for the verdict.
        predict_clips(context, context.backbone, "test", ONE_FRAME, self.batch_size, look=repeated_frame)
        context.ranks.together(lambda: self._report(context, self._with_earlier(context, rows)), only_first=True)
        if missed:  # only now: what could be made is made
            raise UnmetTargetsError(f"{missed} The other models are exported and tested.")

    def _scored_model(self, context: Context) -> ScoredModel:
        return ScoredModel(
            context.backbone,
            context.checkpoint,
            context.split,
            context.relevance_folder,
            [clip.sample_id for clip in context.data.clips(context.split)],
            lambda places: context.batches(context.split, places, self.batch_size),
            context.data.data_hash(context.split),
            context.ranks,
        )

    def _meet_targets(
        self, context: Context, chooser: PlanChooser, targets: Targets
    ) -> tuple[list[Choice], str | None]:
        """Search the depth that meets the targets; the choice, or why there is none."""
        choices = chooser.every_depth()

        def top1(model: Backbone, plan: PruningPlan) -> float | None:
            if not context.data.clips("val"):
                raise ValueError("max_drop is measured on the validation split, which has no clips. Give the data one.")
            found = predict_clips(context, model, "val", f"val/{plan.plan_id}", self.batch_size)
            return context.ranks.together(lambda: top1_percent(found), only_first=True)

        trials = search_depth(context.backbone, [choice.plan for choice in choices], targets, top1, context.ranks)
        path = context.run.table("targets")
        context.ranks.together(lambda: write_trials(trials, path), only_first=True)
        if context.ranks.rank == 0:
            log_results(context.loggers, {"pruning/targets": read_table(path)})
        if not trials[-1].meets:
            return [], unmet(trials, targets)
        return [choice for choice in choices if choice.plan == trials[-1].plan], None

    def _folder(self, context: Context, plan_id: str) -> Path:
        return context.run.pruned(plan_id)

    def _model(self, context: Context, plan_id: str) -> ExportedModel:
        """The model of a plan: what is tested is what lies on disk."""
        if plan_id in {unpruned_plan(score).plan_id for score in get_args(Score)}:
            return ExportedModel(context.backbone, None)
        model = load_exported(self._folder(context, plan_id))
        model.backbone.to(next(context.backbone.parameters()).device)
        return model

    def _export(self, context: Context, choice: Choice) -> None:
        structure, plan = dict(context.module.hparams), choice.plan
        heads = [[unit.layer, unit.site, unit.head] for unit in plan.removed_heads]
        export_model(
            context.backbone.without(plan.removed_layers).without_heads(plan.removed_heads),
            self._folder(context, plan.plan_id),
            name=structure["backbone"],
            options=backbone_options(structure),
            plan=plan,
            provenance={"checkpoint": context.checkpoint, "ranking": choice.ranking},
            scores=choice.scores,
            ranking=choice.order,
            sampling=context.data.sampling(),
            hyper_parameters={
                **structure,
                "removed_layers": list(plan.removed_layers),
                "removed_heads": heads,
                "tokens": None if plan.tokens is None else plan.tokens.plain(),
            },
            programs=self.programs,
        )

    def _test(self, context: Context, plan: PruningPlan, model: ExportedModel, full: Cost) -> PruningRow | None:
        """Test a model on the test split; the row of the table on rank 0, None elsewhere."""
        predictions = predict_clips(context, model.backbone, "test", plan.plan_id, self.batch_size, model.reducer)
        return context.ranks.together(lambda: self._row(context, plan, model, full, predictions), only_first=True)

    def _row(
        self, context: Context, plan: PruningPlan, model: ExportedModel, full: Cost, predictions: pd.DataFrame | None
    ) -> PruningRow:
        assert predictions is not None
        backbone, reducer, kept = model.backbone, model.reducer, None
        clips = None if reducer is None else context.some_clips("test", COUNTED_CLIPS)
        if reducer is not None and clips is not None:
            device = next(backbone.parameters()).device
            shares = [kept_share(backbone, clip.to(device), reducer) for clip in clips.split(1)]
            kept = torch.cat(shares).mean().item()
        cost = count_cost(backbone, reducer, clips)
        return measured_row(context.module.hparams["backbone"], plan, accuracy(predictions), cost, full, kept)

    def _with_earlier(self, context: Context, rows: list[PruningRow]) -> list[PruningRow]:
        """Add the rows of other plans for the same weights, and time all of them in one run."""
        path, sha256 = context.run.pruning_table, weights_sha256(context.backbone)
        return self._with_speed(context, in_order([*rows, *earlier_rows(path, context.run.pruned, sha256, rows)]))

    def _timed_again(self, context: Context) -> list[PruningRow]:
        path = context.run.pruning_table
        if not path.is_file():
            raise ValueError(f"Expected {path}, whose models are to be timed again. Prune first, without retime.")
        if not self.latency_repeats:
            raise ValueError("retime measures times, and latency_repeats 0 measures none. Give one of them.")
        full = [
            row for row in pruning_rows(read_pruning_table(path)) if row.mode == UNPRUNED and row.runtime == RUNTIME
        ]
        return self._with_earlier(context, full)

    def _with_speed(self, context: Context, rows: list[PruningRow]) -> list[PruningRow]:
        """Time models side by side, machines drift too much for one after the other; not more than memory holds.

        Rows of other runtimes keep their times, and the name of the run that these are of.
        """
        if not self.latency_repeats:
            return rows
        ours = [row for row in rows if row.runtime == RUNTIME and row.format == FORMAT]
        timed = {row.plan_id: row for row in self._timed(context, ours)}
        return [timed[row.plan_id] if row in ours else row for row in rows]

    def _timed(self, context: Context, rows: list[PruningRow]) -> list[PruningRow]:
        clips = context.some_clips("test", self.latency_batch)
        timing_run = timing_name(context.backbone)
        timed: list[PruningRow] = []
        for start in range(0, len(rows), MODELS_AT_ONCE):
            group = rows[start : start + MODELS_AT_ONCE]
            models = {row.plan_id: self._model(context, row.plan_id) for row in group}
            backbones = {plan_id: model.backbone for plan_id, model in models.items()}
            reducers = {plan_id: model.reducer for plan_id, model in models.items() if model.reducer is not None}
            time = partial(compare_latency, backbones, reducers=reducers, clips=clips)
            single = time(batch=1, repeats=self.latency_repeats)
            many = time(batch=self.latency_batch, repeats=max(self.latency_repeats // 2, 3))
            timed += with_speed(group, single, many, timing_run)
        return timed

    def _by_class_and_subject(self, context: Context, models: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Write pruning_by_class.csv and pruning_by_subject.csv, and return them under their names in W&B."""
        names = context.data.class_names
        class_of = {clip.sample_id: names[clip.label] for clip in context.data.clips("test")}
        outcomes = read_outcomes(models["plan_id"], context.run.predictions_folder, class_of)
        found = {
            "class": accuracy_by(outcomes, models, "class"),
            "subject": accuracy_by(outcomes, models, "group"),
        }
        for key, table in found.items():
            write_table(table, context.run.table(f"pruning_by_{key}"), float_format="%.6g")
        return {f"pruning/by_{key}": table for key, table in found.items()}

    def _report(self, context: Context, rows: list[PruningRow]) -> None:
        path = context.run.pruning_table
        write_pruning_table(rows, path)
        frame = read_pruning_table(path)
        write_text(path.with_suffix(".md"), pruning_table_markdown(frame) + "\n")
        log_results(context.loggers, self._by_class_and_subject(context, frame))
        labels = [clip.label for clip in context.data.clips("test")]
        majority = 100 * max(labels.count(label) for label in set(labels)) / len(labels)
        figures = {"accuracy_against_cost": accuracy_against_cost(frame, majority=majority)}
        if has_depths(frame):
            figures["accuracy_against_depth"] = accuracy_against_depth(frame, majority=majority)
        drawn = [save_figure(figure, context.run.figures, name)[0] for name, figure in figures.items()]
        log_results(context.loggers, {"pruning": frame, **{f"pruning/{name}": f for name, f in figures.items()}})
        console = Console(width=max(Console().width, 110))
        console.print(render_pruning_table(frame))
        scores = context.relevance_folder
        for what, where in (
            ("Table", path),
            ("Figures", f"{', '.join(map(str, drawn))} and more in {context.run.figures}"),
            *([("Scores", scores)] if scores.is_dir() else []),  # tokens alone need none
            ("Pruned models", context.run.pruned_folder),
        ):
            console.print(f"{what + ':':<14} {where}", highlight=False, soft_wrap=True)
