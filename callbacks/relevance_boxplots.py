"""After the ablation: one box per layer (the thesis' figure 5.1) and one per head, and the statistics behind them."""

from __future__ import annotations

from typing import ClassVar, Literal

import pandas as pd

from callbacks.analysis import Analysis, Context
from callbacks.logging_results import log_to_wandb
from sightline.relevance.statistics import interval_note
from sightline.relevance.table import KINDS, read_manifest, read_scores
from sightline.report.boxplots import head_boxplot, layer_boxplot
from sightline.report.boxplots_interactive import head_boxplot_interactive, layer_boxplot_interactive
from sightline.report.files import save_figure
from sightline.report.relevance_tables import relevance_tables, write_relevance_tables


class RelevanceBoxplots(Analysis):
    """Draws and summarises the scores: figures/relevance_*, tables/relevance_*, tables/stability_*; the same in W&B."""

    command: ClassVar[str] = "ablate"

    def __init__(self, scores: list[Literal["r", "jsd", "dprob"]] | None = None) -> None:
        """Set up the figures.

        Args:
            scores: Which scores to draw and to summarise; r if not given.
        """
        self.scores = scores or ["r"]

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
                paths = save_figure(static[kind](table, score), context.folder / "figures", name)
                print(f"Drew {', '.join(map(str, paths))}")
                log_to_wandb(context.loggers, {f"{name}/figure": interactive[kind](table, score)})
            self._summarise(context, kind, table)

    def _summarise(self, context: Context, kind: str, table: pd.DataFrame) -> None:
        entry = read_manifest(context.relevance_folder)["tables"][kind]
        # A layer that cannot be removed is no rival for a place among those that are; a head can go from any layer.
        removable = [info.index for info in context.backbone.layers if info.removable] if kind == "layers" else None
        race = entry.get("race")
        tables = relevance_tables(table, self.scores, entry["class_names"], removable, race, entry["noise_floor"])
        paths = write_relevance_tables(tables, context.folder / "tables", context.split, kind)
        log_to_wandb(
            context.loggers, {f"relevance_{context.split}_{kind}/{name}": frame for name, frame in tables.items()}
        )
        print(f"Wrote {', '.join(map(str, paths))}. {interval_note(table['group'].nunique(), race is not None)}")
