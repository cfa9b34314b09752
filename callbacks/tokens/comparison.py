"""A trained model with each token reduction at each share of kept tokens, without training: tables/tokens.csv."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from rich.console import Console
from torch import Tensor
from tqdm.auto import tqdm

from callbacks.analysis import COUNTED_CLIPS, Analysis, Context, predict_clips, timing_name
from callbacks.logging_results import log_results
from lightning_modules.video_classifier import VideoClassifier
from sightline.backbones.fingerprint import weights_sha256
from sightline.export.counting import Cost
from sightline.export.evaluation import accuracy
from sightline.export.latency import compare_latency
from sightline.export.token_tests import TokenTest, choose_amount, counted, in_order, read_record, write_record
from sightline.report.figures.saving import save_figure
from sightline.report.figures.tokens import accuracy_of_tokens
from sightline.report.tables.measured_rows import measured_row, with_speed
from sightline.report.tables.pruning import PruningRow, read_pruning_table
from sightline.report.tables.tokens import read_token_table, token_table, tokens_by
from sightline.report.tables.tokens_layout import control_sentences, render_token_table, token_table_markdown
from sightline.run.atomic import write_text
from sightline.run.csv_table import read_table, write_table
from sightline.run.paths import TOKEN_PREDICTIONS
from sightline.tokens.asked import check_method, read_methods, usable_methods, with_draws

log = logging.getLogger(__name__)

KEPT = (0.9, 0.7, 0.5, 0.25)


class TokenComparison(Analysis):
    """Tests the model with token reductions at equal shares of kept tokens: tables/tokens.csv."""

    command: ClassVar[str] = "tokens"
    takes_tokens: ClassVar[bool] = True

    def __init__(
        self,
        methods: list[str | dict[str, Any]] | None = None,
        kept: list[float] | None = None,
        draws: int = 5,
        batch_size: int | None = None,
        latency_batch: int = 8,
        latency_repeats: int = 20,
    ) -> None:
        """Set up the comparison.

        Args:
            methods: Token reductions by name, e.g. random, with options as random:layer=2 or {name: random, options:
                {layer: 2}}; all that work with the model if not given.
            kept: Shares of the tokens to keep, mean over layers and clips; 0.9, 0.7, 0.5 and 0.25 if not given. The
                amount of a method that comes nearest is tested.
            draws: How many draws of random dropping are tested at each share.
            batch_size: Clips per batch in tests; the data module's if not given.
            latency_batch: Clips per forward pass when throughput is measured (latency is measured at 1).
            latency_repeats: Timed forward passes of every reduction; 0 measures no time.
        """
        if draws < 1:
            raise ValueError(f"Expected at least one draw of random dropping, got {draws}.")
        self.methods = None if methods is None else read_methods(methods)
        self.kept = _shares(KEPT if kept is None else kept)
        self.draws = draws
        self.batch_size = batch_size
        self.latency_batch = latency_batch
        self.latency_repeats = latency_repeats

    def override(self, methods: Sequence[str | dict[str, Any]] | None, kept: Sequence[float] | None) -> None:
        """Take other methods or shares than it was set up with; None leaves them."""
        if methods is not None:
            self.methods = read_methods(methods)
        if kept is not None:
            self.kept = _shares(kept)

    def check(self, module: VideoClassifier) -> None:
        super().check(module)
        if module.tokens is not None:
            log.warning(
                "The model is one that runs with %s. If its blocks were trained like that, other reductions, and all "
                "tokens, are compared on weights that are used to this one.",
                module.tokens.label,
            )
        for method in self.methods or []:
            check_method(method, module.backbone)
        if self.methods is None and not usable_methods(module.backbone)[0]:
            raise ValueError(f"No registered token reduction works with {module.backbone.family}.")

    def analyse(self, context: Context) -> None:
        source = made_from(context)
        # Every process reads what is done before any of them adds to it: all must test the same.
        earlier = context.ranks.together(lambda: self._earlier(context, source))
        assert earlier is not None
        device = next(context.backbone.parameters()).device
        clips = context.some_clips("test", COUNTED_CLIPS).to(device)
        asked = self._asked(context, earlier, clips)
        finished = list(earlier)
        todo = [test for test in asked if test.key() not in {done.key() for done in finished}]
        if not todo and context.ranks.rank == 0:
            print("All of it was tested before, with the same weights and data.")
        for test in tqdm(todo, "Testing", unit="reduction", disable=not todo or context.ranks.rank != 0):
            done = self._test(context, test, clips, finished)
            finished.append(done)
            record = partial(write_record, list(finished), context.run.token_record, source)
            context.ranks.together(record, only_first=True)
        context.ranks.together(lambda: self._report(context, in_order(finished)), only_first=True)

    def _earlier(self, context: Context, source: dict[str, Any]) -> list[TokenTest]:
        """Tests of the same weights and data that are finished; also of methods that are not asked for now."""
        done = read_record(context.run.token_record, source)
        return [test for test in done if not test.reached or self._predictions(context, test).is_file()]

    def _predictions(self, context: Context, test: TokenTest) -> Path:
        return context.run.token_predictions / f"{test.plan.plan_id}.csv"

    def _asked(self, context: Context, earlier: Sequence[TokenTest], clips: Tensor) -> list[TokenTest]:
        """Choose the amount of every method that is asked for at every share, where that was not done before."""
        refused: dict[str, str] = {}
        methods = self.methods
        if methods is None:
            methods, refused = usable_methods(context.backbone)
        known = {test.key(): test for test in earlier}
        pairs = [(m, kept) for method in methods for m in with_draws(method, self.draws) for kept in self.kept]
        tests = [TokenTest()]
        unknown = [pair for pair in pairs if pair not in known]
        for pair in tqdm(unknown, "Choosing amounts", unit="reduction", disable=not unknown or context.ranks.rank != 0):
            known[pair] = choose_amount(pair[0], pair[1], context.backbone, clips)
        tests += [known[pair] for pair in pairs]
        if context.ranks.rank == 0:
            for name, why in refused.items():
                print(f"Left out: {name}. {why}")
        return tests

    def _test(self, context: Context, test: TokenTest, clips: Tensor, finished: Sequence[TokenTest]) -> TokenTest:
        """Predict the test clips with a reduction, and count what it costs."""
        same = next((done for done in finished if done.reached and done.plan == test.plan), None)
        if not test.reached:
            return test
        if same is None:  # else another share, or draw, came to the very same reduction
            reducer = None if test.tokens is None else test.tokens.build()
            name = f"{TOKEN_PREDICTIONS}/{test.plan.plan_id}"
            predict_clips(context, context.backbone, "test", name, self.batch_size, reducer)
        return context.ranks.together(lambda: counted(test, context.backbone, clips), only_first=True) or test

    def _report(self, context: Context, tests: list[TokenTest]) -> None:
        reached = {test.plan.plan_id: test for test in tests if test.reached}
        text = {"sample_id": str, "group": str}
        predictions = {
            plan_id: read_table(self._predictions(context, test), dtype=text, keep_default_na=False)
            for plan_id, test in reached.items()
        }
        params = sum(parameter.numel() for parameter in context.backbone.parameters())
        costs = {plan_id: Cost(params, int(test.macs or 0)) for plan_id, test in reached.items()}
        full = costs[tests[0].plan.plan_id]
        rows = [
            measured_row(
                context.module.hparams["backbone"], test.plan, accuracy(predictions[plan_id]), costs[plan_id], full,
                test.share,
            )
            for plan_id, test in reached.items()
        ]  # fmt: skip
        path = context.run.table("tokens")
        # Also before times are measured, which takes long: what is known by then is not lost.
        for measured in (rows, self._timed(context, reached, rows)) if self.latency_repeats else (rows,):
            write_table(token_table(tests, {row.plan_id: row for row in measured}, predictions), path)
        self._show(context, read_token_table(path))

    def _timed(self, context: Context, tests: dict[str, TokenTest], rows: list[PruningRow]) -> list[PruningRow]:
        """Time all reductions in turns, the model with all tokens among them."""
        backbones = {plan_id: context.backbone for plan_id in tests}
        reducers = {plan_id: test.tokens.build() for plan_id, test in tests.items() if test.tokens is not None}
        clips, timing_run = context.some_clips("test", self.latency_batch), timing_name(context.backbone)
        time = partial(compare_latency, backbones, reducers=reducers, clips=clips)
        single = time(batch=1, repeats=self.latency_repeats)
        many = time(batch=self.latency_batch, repeats=max(self.latency_repeats // 2, 3))
        return with_speed(rows, single, many, timing_run)

    def _show(self, context: Context, frame: pd.DataFrame) -> None:
        run = context.run
        path = run.table("tokens")
        write_text(path.with_suffix(".md"), token_table_markdown(frame) + "\n")
        names = context.data.class_names
        class_of = {clip.sample_id: names[clip.label] for clip in context.data.clips("test")}
        results: dict[str, Any] = {"tokens": frame}
        for key in ("class", "group"):
            name = "subject" if key == "group" else key
            results[f"tokens/by_{name}"] = by = tokens_by(frame, run.token_predictions, class_of, key)  # type: ignore[arg-type]
            write_table(by, run.table(f"tokens_by_{name}"), float_format="%.6g")
        drawn = ""
        if frame["top1"].notna().sum() > 1:
            pruning = read_pruning_table(run.pruning_table) if run.pruning_table.is_file() else None
            results["tokens/accuracy"] = figure = accuracy_of_tokens(frame, pruning)
            drawn = str(save_figure(figure, run.figures, "tokens")[0])
        log_results(context.loggers, results)
        console = Console(width=max(Console().width, 100))
        console.print(render_token_table(frame))
        for sentence in control_sentences(frame):
            console.print(sentence, highlight=False)
        for what, where in (("Table", path), ("Figure", drawn)):
            if where:
                console.print(f"{what + ':':<7} {where}", highlight=False, soft_wrap=True)


def made_from(context: Context) -> dict[str, Any]:
    """Say which weights and data tests are of; those of others are made again."""
    return {
        "weights_sha256": weights_sha256(context.backbone),
        "data_sha256": context.data.data_hash("test"),
        "counted_clips": COUNTED_CLIPS,
    }


def _shares(kept: Sequence[float]) -> list[float]:
    found = sorted(set(map(float, kept)), reverse=True)
    if not found or not all(0 < share <= 1 for share in found):
        raise ValueError(
            f"Shares of tokens to keep lie above 0 and at most 1; got {', '.join(map(str, kept)) or 'none'}."
        )
    return found
