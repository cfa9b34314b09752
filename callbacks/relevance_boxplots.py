"""After the ablation: one box per layer (the thesis' figure 5.1) and one per head, and the statistics behind them.

Which heads are most relevant, to what and at which depth, is chosen here too (the thesis' table 5.4).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import pandas as pd

from callbacks.analysis import Analysis, Context
from callbacks.logging_results import log_results
from sightline.relevance.heads import default_ends
from sightline.relevance.table import KINDS, read_manifest, read_scores
from sightline.relevance.unit_tables import interval_note
from sightline.report.figures.boxplots import head_boxplot, layer_boxplot
from sightline.report.figures.boxplots_interactive import head_boxplot_interactive, layer_boxplot_interactive
from sightline.report.figures.saving import save_figure
from sightline.report.tables.heads import head_tables, write_head_tables
from sightline.report.tables.relevance import relevance_tables, write_relevance_tables


class RelevanceBoxplots(Analysis):
    """Draws and summarises the scores: figures/relevance_*, tables/{relevance,stability,*_heads}_*; the same in W&B."""

    command: ClassVar[str] = "ablate"

    def __init__(
        self,
        scores: list[Literal["r", "jsd", "dprob"]] | None = None,
        early_layers: int | None = None,
        deep_layers: int | None = None,
        specialised_layers: int = 2,
    ) -> None:
        """Set up the figures and the choice of heads.

        Args:
            scores: Which scores to draw and to summarise; r if not given.
            early_layers: How many of the first layers count as early; by default 1 of a TimeSformer, 2 of the others.
            deep_layers: How many of the last layers count as deep, likewise.
            specialised_layers: How many of the last layers the specialised head of every class is chosen from.
        """
        self.scores = scores or ["r"]
        self.early_layers, self.deep_layers = early_layers, deep_layers
        self.specialised_layers = specialised_layers

    def analyse(self, context: Context) -> None:
        context.ranks.together(lambda: self._draw(context), only_first=True)

    def _draw(self, context: Context) -> None:
        static = {"layers": layer_boxplot, "heads": head_boxplot}
        interactive = {"layers": layer_boxplot_interactive, "heads": head_boxplot_interactive}
        for kind in KINDS:
            if kind not in read_manifest(context.relevance_folder)["tables"]:
                continue
            table = read_scores(context.relevance_folder, kind)
            for score in self.scores:
                name = f"relevance_{context.split}_{kind}_{score}"
                paths = save_figure(static[kind](table, score), context.run.figures, name)
                print(f"Drew {', '.join(map(str, paths))}")
                log_results(context.loggers, {f"{name}/figure": interactive[kind](table, score)})
            self._summarise(context, kind, table)

    def _summarise(self, context: Context, kind: str, table: pd.DataFrame) -> None:
        entry = read_manifest(context.relevance_folder)["tables"][kind]
        # A layer that cannot be removed is no rival for a place among those that are; a head can go from any layer.
        removable = [info.index for info in context.backbone.layers if info.removable] if kind == "layers" else None
        race = entry.get("race")
        tables = relevance_tables(table, self.scores, entry["class_names"], removable, race, entry["noise_floor"])
        paths = write_relevance_tables(tables, context.run.tables, context.split, kind)
        log_results(
            context.loggers, {f"relevance_{context.split}_{kind}/{name}": frame for name, frame in tables.items()}
        )
        print(f"Wrote {', '.join(map(str, paths))}. {interval_note(table['group'].nunique(), race)}")
        if kind == "heads":
            self._choose_heads(context, table, entry["class_names"], raced=race is not None)

    def _choose_heads(self, context: Context, table: pd.DataFrame, class_names: list[str], raced: bool) -> None:
        ends = default_ends(context.backbone.end_layers, table["layer"].nunique())
        early = ends if self.early_layers is None else self.early_layers
        deep = ends if self.deep_layers is None else self.deep_layers
        # Heads of a race saw different samples: what earlier scores chose goes, and nothing takes its place.
        tables = {} if raced else head_tables(table, self.scores, class_names, early, deep, self.specialised_layers)
        paths = write_head_tables(tables, context.run.tables, context.split)
        if not tables:
            print("Chose no heads: the table is of a race.")
            return
        # One row per sample is more than anyone reads in W&B; it is on disk.
        shown = {name: frame for name, frame in tables.items() if name != "extreme_by_sample"}
        log_results(context.loggers, {f"heads_{context.split}/{name}": frame for name, frame in shown.items()})
        print(f"Chose heads: {', '.join(map(str, paths))}")
