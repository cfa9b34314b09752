"""On a trained model: which attribution methods are right, by one yardstick: tables/attribution_<split>.csv."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pandas as pd
from rich.console import Console

from callbacks.analysis import Analysis, Context
from callbacks.clip_truths import ClipTruths
from callbacks.logging_results import log_results
from lightning_modules.video_classifier import VideoClassifier
from sightline.backbones.fingerprint import weights_sha256
from sightline.explain.attribution.method import Method
from sightline.explain.attribution.registry import METHODS, label_of, read_methods
from sightline.explain.methods.relevant_heads import RelevantHeads
from sightline.explain.metrics.attribution_job import attribute_split
from sightline.explain.metrics.attribution_scores import GROUPS, QUICK
from sightline.relevance.table import read_manifest, read_scores
from sightline.report.figures.attribution import attribution_figure
from sightline.report.figures.saving import save_figure
from sightline.report.tables.attribution import read_attribution_table, write_attribution_tables
from sightline.report.tables.attribution_layout import CAPTION, render_attribution
from sightline.types import Unit

log = logging.getLogger(__name__)

SLOW = ("occlusion", "kernel_shap", "lime", "token_sampling")
"""Methods that run hundreds of passes for a clip: they are asked for by name."""


class AttributionComparison(Analysis):
    """Measures attribution methods and controls: tables/attribution_<split>.csv, a figure, the same in W&B."""

    command: ClassVar[str] = "attribute"

    def __init__(
        self,
        methods: list[str | dict[str, Any]] | None = None,
        metrics: list[str] | None = None,
        clips: int = 100,
        target: Literal["predicted", "label"] = "predicted",
        boxes: str | None = None,
    ) -> None:
        """Set up the comparison.

        Args:
            methods: Methods by name, with options as staa:lam=1.5 or {name: staa, options: {lam: 1.5}}; by default all
                that work with the model and take a few passes, and the controls.
            metrics: Groups of metrics: removal, agreement, localisation, tracking, brightness, spot, sensitivity,
                sanity; the first five if not given. The others compute further maps of every clip.
            clips: How many clips, spread evenly over the split.
            target: Which class is explained: the one that the model predicts, or the clip's label.
            boxes: CSV of boxes in pixels of the videos (docs/pointing.md); by default those that the data know of
                themselves, which only the synthetic cabin does.
        """
        self.methods = None if methods is None else read_methods(methods)
        self.metrics = _checked(QUICK if metrics is None else metrics)
        self.clips = _at_least_one(clips)
        self.target: Literal["predicted", "label"] = target
        self.boxes = boxes

    def override(
        self, methods: Sequence[str | dict[str, Any]] | None, metrics: Sequence[str] | None, clips: int | None
    ) -> None:
        """Take other methods, metrics or clips than it was set up with; None leaves them."""
        if methods is not None:
            self.methods = read_methods(methods)
        if metrics is not None:
            self.metrics = _checked(metrics)
        if clips is not None:
            self.clips = _at_least_one(clips)

    def check(self, module: VideoClassifier) -> None:
        super().check(module)
        for method in self.methods or []:
            if not isinstance(method, RelevantHeads):  # it is given its weights when the run's scores are read
                method.check(module.backbone)

    def analyse(self, context: Context) -> None:
        known = ClipTruths(context, self.boxes, masks="localisation" in self.metrics)
        clips = context.data.clips(context.split)
        places = sorted({place * len(clips) // self.clips for place in range(self.clips)}) if clips else []
        if not places:
            raise ValueError(f"There is no clip in the {context.split} split to explain.")
        if not known.places and context.ranks.rank == 0:
            print("No boxes are known of these clips: localisation and tracking are left out (docs/pointing.md).")
        methods = self._usable(context)
        path = attribute_split(
            [clips[place].sample_id for place in places],
            lambda at: context.batches(context.split, [places[i] for i in at], None),
            context.backbone,
            methods,
            self.metrics,
            known.of,
            context.run.attribution(context.split),
            context.ranks,
            self.target,
            {
                "weights_sha256": weights_sha256(context.backbone),
                "data_sha256": context.data.data_hash(context.split),
                "boxes": self.boxes,
            },
        )
        controls = [label for label, method in methods.items() if method.control]
        context.ranks.together(lambda: self._report(context, pd.read_parquet(path), controls), only_first=True)

    def _usable(self, context: Context) -> dict[str, Method]:
        """Return the methods by label; those that were not asked for are left out where they cannot work."""
        asked = self.methods
        if asked is None:
            asked = read_methods([name for name in METHODS if name not in SLOW])
        found: dict[str, Method] = {}
        for method in asked:
            if isinstance(method, RelevantHeads):
                method = replace(method, weights=head_relevance(context))
            try:
                method.check(context.backbone)
            except ValueError as error:
                if self.methods is not None:
                    raise
                if context.ranks.rank == 0:
                    print(f"Left out: {method.name}. {error}")
                continue
            found[label_of(method)] = method
        return found

    def _report(self, context: Context, rows: pd.DataFrame, controls: Sequence[str]) -> None:
        paths = write_attribution_tables(rows, controls, context.run.tables, context.split)
        table = read_attribution_table(paths[0])
        figure = attribution_figure(table)
        drawn = save_figure(figure, context.run.figures, f"attribution_{context.split}")[0]
        log_results(
            context.loggers,
            {f"attribution_{context.split}/table": table, f"attribution_{context.split}/figure": figure},
        )
        console = Console(width=max(Console().width, 110))
        console.print(render_attribution(table))
        console.print(CAPTION, highlight=False)
        for what, where in (("Table", paths[0]), ("Pairs", paths[1]), ("Figure", drawn)):
            console.print(f"{what + ':':<7} {where}", highlight=False, soft_wrap=True)


def head_relevance(context: Context) -> dict[Unit, float] | None:
    """Return the mean r of every head over the training clips; None where not all of them were scored."""
    entry = read_manifest(context.run.relevance("train").path)["tables"].get("heads")
    if entry is None or entry.get("race") is not None:
        return None
    scores = read_scores(context.run.relevance("train").path, "heads")
    means = scores.groupby(["layer", "site", "head"], observed=True, as_index=False)["r"].mean()
    existing = set(context.backbone.units("heads"))
    units = [Unit(int(row.layer), str(row.site), int(row.head)) for row in means.itertuples()]
    return {unit: float(r) for unit, r in zip(units, means["r"], strict=True) if unit in existing}


def _checked(metrics: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(metrics))
    unknown = [name for name in found if name not in GROUPS]
    if unknown or not found:
        raise ValueError(f"Expected groups of metrics among {', '.join(GROUPS)}; got {', '.join(metrics) or 'none'}.")
    return found


def _at_least_one(clips: int) -> int:
    if clips < 1:
        raise ValueError(f"Expected at least one clip to explain, got {clips}.")
    return clips
